//! What the console says, in each of its languages. A text that is missing in one of them does not compile.

/// A language of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lang {
    /// English.
    En,
    /// Thai.
    Th,
}

impl Lang {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::En, Self::Th];

    /// As BCP 47 says it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Th => "th",
        }
    }

    /// Short enough for a button, in letters that every page has.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::En => "EN",
            Self::Th => "TH",
        }
    }

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::En => Self::Th,
            Self::Th => Self::En,
        }
    }

    /// The language of a code, such as `th-TH`.
    pub(crate) fn parse(code: &str) -> Option<Self> {
        let primary = code.trim().split(['-', ';']).next()?;
        Self::ALL.into_iter().find(|lang| lang.code().eq_ignore_ascii_case(primary))
    }

    /// The first that is ours of those a browser prefers; their order is their preference.
    pub(crate) fn preferred(accept_language: &str) -> Option<Self> {
        accept_language.split(',').find_map(Self::parse)
    }

    /// What is said in it.
    pub(crate) fn texts(self) -> &'static Texts {
        match self {
            Self::En => &EN,
            Self::Th => &TH,
        }
    }
}

macro_rules! texts {
    ($($name:ident: $en:literal, $th:literal;)*) => {
        /// Every text, by what it is for.
        #[derive(Debug)]
        pub(crate) struct Texts { $(pub(crate) $name: &'static str),* }
        const EN: Texts = Texts { $($name: $en),* };
        const TH: Texts = Texts { $($name: $th),* };
        #[cfg(test)]
        const ALL: &[(&str, &str, &str)] = &[$((stringify!($name), $en, $th)),*];
    };
}

texts! {
    // The frame.
    skip: "Skip to the contents", "ข้ามไปยังเนื้อหา";
    menu: "Pages", "เมนู";
    live: "live", "สด";
    lost_short: "no contact", "ขาดการติดต่อ";
    lost: "No contact with the barn's engine since", "ติดต่อเครื่องประจำโรงเรือนไม่ได้มาแล้ว";
    other_language: "Change language", "เปลี่ยนภาษา";
    log_out: "Log out", "ออกจากระบบ";
    choose_barn: "Choose a barn", "เลือกโรงเรือน";
    no_barns: "No barn is known yet. Place a flock, or let a device in.", "ยังไม่มีโรงเรือน เริ่มรุ่นไก่หรือเพิ่มอุปกรณ์ก่อน";
    here: "here", "ที่นี่";
    back: "Back", "กลับ";
    unit_s: "s", "วินาที";
    unit_min: "min", "นาที";
    unit_h: "h", "ชม.";
    unit_d: "d", "วัน";
    // Pages.
    barn: "Barn", "โรงเรือน";
    weights: "Weights", "น้ำหนัก";
    more: "More", "เพิ่มเติม";
    flock_book: "Flock book", "สมุดประจำรุ่น";
    flock_book_says: "Losses, feed, water, hand weighings; a sheet to print", "ไก่ตาย อาหาร น้ำ ชั่งมือ และใบพิมพ์";
    // The door.
    login_title: "Who is there?", "เข้าสู่ระบบ";
    login_code: "Code of your invitation", "รหัสเชิญ";
    login_code_hint: "Ten letters and digits, good for one login", "ตัวอักษรและตัวเลขสิบตัว ใช้ได้ครั้งเดียว";
    login_by_key: "With an operator key", "ใช้กุญแจผู้ดูแล";
    login_key: "Operator key", "กุญแจผู้ดูแล";
    log_in: "Log in", "เข้าสู่ระบบ";
    login_wrong: "That is not valid, or was used before, or came too late. Ask for another one.", "รหัสไม่ถูกต้อง ใช้แล้ว หรือหมดอายุ ขอรหัสใหม่";
    to_barn: "To the barn", "ไปที่โรงเรือน";
    not_found: "There is no such page", "ไม่พบหน้านี้";
    not_found_text: "It may have been moved, or belongs to somebody else.", "อาจถูกย้าย หรือเป็นของผู้อื่น";
    not_allowed: "Not for your role", "ไม่มีสิทธิ์";
    not_allowed_text: "Ask whoever invited you for more rights.", "ขอสิทธิ์เพิ่มจากผู้ที่เชิญคุณ";
    cross_site: "The wish came from another page and was not done.", "คำสั่งมาจากหน้าอื่น จึงไม่ได้ทำ";
    no_database: "The database does not answer", "ฐานข้อมูลไม่ตอบ";
    no_database_text: "Sensors wait and lose nothing. Try again in a moment.", "อุปกรณ์รออยู่ ข้อมูลไม่หาย ลองใหม่อีกครู่";
    try_again: "Something went wrong", "เกิดข้อผิดพลาด";
    // What was done.
    said_written: "Written down.", "บันทึกแล้ว";
    said_taken_back: "Taken back. The book keeps both.", "ยกเลิกแล้ว สมุดเก็บทั้งสองรายการ";
    said_placed: "The flock is placed. Day 0 is set.", "เริ่มรุ่นแล้ว ตั้งวันที่ 0 แล้ว";
    said_ended: "The flock has ended.", "จบรุ่นแล้ว";
    said_done: "Done.", "เรียบร้อย";
    // Units and words of birds.
    day: "Day", "วันที่";
    date: "Date", "วันที่ตามปฏิทิน";
    kg: "kg", "กก.";
    g: "g", "กรัม";
    l: "l", "ลิตร";
    m2: "m²", "ตร.ม.";
    birds: "Birds", "จำนวนตัว";
    birds_unit: "birds", "ตัว";
    weight: "Weight", "น้ำหนัก";
    standard: "Standard", "มาตรฐาน";
    weighings: "Weighings", "จำนวนครั้งที่ชั่ง";
    uniformity: "Uniformity", "ความสม่ำเสมอ";
    // Weights.
    today: "Today", "วันนี้";
    no_flock: "No flock in this barn", "โรงเรือนนี้ยังไม่มีรุ่นไก่";
    no_flock_text: "Place a flock, so that days are counted and weights are compared with the standard.", "เริ่มรุ่นไก่ก่อน จึงจะนับอายุและเทียบน้ำหนักกับมาตรฐานได้";
    place_flock: "Place a flock", "เริ่มรุ่นใหม่";
    no_weighings: "No weighings yet on this day.", "วันนี้ยังไม่มีการชั่ง";
    above: "above the standard", "สูงกว่ามาตรฐาน";
    within: "as the standard", "ตามมาตรฐาน";
    below: "below the standard", "ต่ำกว่ามาตรฐาน";
    too_few: "few weighings", "ชั่งน้อยเกินไป";
    growth: "Growth", "การเติบโต";
    key_mean: "mean with its 95 % interval", "ค่าเฉลี่ยกับช่วง 95 %";
    key_uncertain: "too few weighings", "จำนวนชั่งน้อย";
    key_standard: "standard ±5 %", "มาตรฐาน ±5 %";
    key_hand: "weighed by hand", "ชั่งมือ";
    key_forecast: "forecast", "คาดการณ์";
    in_figures: "In figures", "ตัวเลข";
    spread: "How the weights are spread", "การกระจายน้ำหนัก";
    as_table: "As a table", "ดูเป็นตาราง";
    from_to_kg: "From – to, kg", "ช่วง (กก.)";
    day_by_day: "Day by day", "รายวัน";
    cv: "Variation (CV)", "ความแปรปรวน (CV)";
    deviation: "Against the standard", "เทียบมาตรฐาน";
    lag: "Behind the standard", "ช้ากว่ามาตรฐาน";
    days_unit: "days", "วัน";
    daily_gain: "Gain since yesterday", "เพิ่มจากเมื่อวาน";
    weekly_gain: "Gain a day, over a week", "เพิ่มต่อวัน เฉลี่ยสัปดาห์";
    corrected: "Corrected by hand weighings", "ปรับด้วยการชั่งมือ";
    outliers: "Set aside", "ไม่นับรวม";
    // Flock book.
    flock: "Flock", "รุ่น";
    in_barn: "in the barn", "กำลังเลี้ยง";
    ended: "ended", "จบแล้ว";
    placed_on: "Placed on", "วันลงไก่";
    birds_placed: "Birds placed", "จำนวนลงเลี้ยง";
    breed: "Breed", "สายพันธุ์";
    sex: "Sex", "เพศ";
    as_hatched: "As hatched", "คละเพศ";
    male: "Male", "ผู้";
    female: "Female", "เมีย";
    batch: "Flock number", "เลขรุ่น";
    batch_hint: "As scales and the cloud know it", "ตามที่เครื่องชั่งและคลาวด์ใช้";
    target_weight: "Target weight", "น้ำหนักเป้าหมาย";
    floor: "Floor", "พื้นที่";
    time_zone: "Time zone", "เขตเวลา";
    zone_hint: "Days begin at midnight here", "วันเริ่มเที่ยงคืนตามเขตเวลานี้";
    barn_called: "The barn is called", "ชื่อโรงเรือน";
    print_sheet: "Sheet to print", "ใบพิมพ์";
    print: "Print", "พิมพ์";
    losses_today: "Losses today", "ไก่ตายและคัดวันนี้";
    dead: "Dead", "ไก่ตาย";
    culled: "Culled", "ไก่คัด";
    morning: "Morning", "เช้า";
    evening: "Evening", "เย็น";
    so_far: "so far today", "วันนี้รวม";
    birds_left: "Birds left", "ไก่คงเหลือ";
    cum_mortality: "Mortality so far", "อัตราการสูญเสียสะสม";
    liveability: "Liveability", "อัตราการเลี้ยงรอด";
    mortality_guide: "Guide for this age", "เกณฑ์ของอายุนี้";
    density: "Live weight on the floor", "น้ำหนักต่อพื้นที่";
    feed: "Feed", "อาหาร";
    water: "Water", "น้ำกิน";
    humidity: "Humidity", "ความชื้น";
    fcr: "Feed / body weight", "อาหารต่อน้ำหนักตัว (FCR)";
    fcr_gain: "Feed / gain", "อาหารต่อน้ำหนักที่เพิ่ม";
    epef: "Efficiency (EPEF)", "ดัชนีผลผลิต (EPEF)";
    write_other: "Write down something else", "บันทึกอย่างอื่น";
    what: "What", "รายการ";
    amount: "Amount", "จำนวน";
    birds_weighed: "Birds weighed", "จำนวนไก่ที่ชั่ง";
    remark: "Remark", "หมายเหตุ";
    write_down: "Write down", "บันทึก";
    written_down: "What was written down", "รายการที่บันทึก";
    nothing_written: "Nothing yet.", "ยังไม่มี";
    take_back: "Take back", "ยกเลิก";
    taken_back: "taken back", "ยกเลิกแล้ว";
    by: "by", "โดย";
    end_flock: "End the flock", "จบรุ่น";
    last_day: "Last day with birds", "วันสุดท้ายที่มีไก่";
    end_sure: "All birds have left the barn", "จับไก่ออกหมดแล้ว";
    signature: "Signature", "ลงชื่อ";
    printed: "Printed", "พิมพ์เมื่อ";
    kind_mortality: "Dead birds", "ไก่ตาย";
    kind_cull: "Culled birds", "ไก่คัด";
    kind_thinning: "Birds taken out alive", "จับออกบางส่วน (ตัว)";
    kind_feed_delivered: "Feed delivered, kg", "รับอาหาร (กก.)";
    kind_feed_left: "Feed left in the silo, kg", "อาหารคงเหลือในไซโล (กก.)";
    kind_feed_returned: "Feed taken back, kg", "คืนอาหาร (กก.)";
    kind_feed_intake: "Feed eaten, kg", "กินอาหาร (กก.)";
    kind_water_meter: "Water meter, l", "มิเตอร์น้ำ (ลิตร)";
    kind_hand_weighing: "Hand weighing, mean kg", "ชั่งมือ น้ำหนักเฉลี่ย (กก.)";
    kind_note: "Note", "บันทึกข้อความ";
    wrong_number: "That is no number that fits here.", "ตัวเลขไม่ถูกต้อง";
    wrong_day: "That day is none of the flock's.", "วันที่ไม่อยู่ในรุ่นนี้";
    wrong_barn_taken: "The barn has another flock on one of these days, or one of this number. End it first.", "โรงเรือนมีรุ่นอื่นในวันเหล่านี้ หรือเลขรุ่นซ้ำ จบรุ่นเดิมก่อน";
    wrong_zone: "This time zone is not known; an example is Asia/Bangkok.", "ไม่รู้จักเขตเวลานี้ ตัวอย่าง Asia/Bangkok";
    wrong_ended: "The flock has ended, or was placed later.", "รุ่นนี้จบแล้ว หรือลงไก่หลังวันนั้น";
    wrong_corrected: "It was taken back before.", "ยกเลิกไปก่อนแล้ว";
    wrong_fields: "Something is missing or too long.", "ข้อมูลไม่ครบหรือยาวเกินไป";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_its_first_language_that_is_ours() {
        let check = |header: &str, expected| assert_eq!(Lang::preferred(header), expected, "{header}");
        check("th-TH,th;q=0.9,en;q=0.8", Some(Lang::Th));
        check("de-DE, en-GB;q=0.7", Some(Lang::En));
        check("TH", Some(Lang::Th));
        check("thx", None);
        check("", None);
    }

    #[test]
    fn every_text_is_there_and_thai_is_thai() {
        for (name, en, th) in ALL {
            assert!(!en.is_empty() && !th.is_empty(), "{name}");
            assert!(
                en.is_ascii() || en.chars().all(|c| !('\u{e00}'..='\u{e7f}').contains(&c)),
                "{name}: {en}"
            );
            assert!(th.chars().any(|c| ('\u{e00}'..='\u{e7f}').contains(&c)), "{name}: {th}");
        }
    }
}

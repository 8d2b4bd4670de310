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
    ago: "ago", "ที่แล้ว";
    status_ok: "OK", "ปกติ";
    status_look: "Look", "ควรดู";
    status_act: "Act", "ต้องแก้ไข";
    status_unknown: "Unknown", "ไม่ทราบ";
    // Pages.
    barn: "Barn", "โรงเรือน";
    weights: "Weights", "น้ำหนัก";
    climate: "Climate", "อากาศ";
    alarms: "Alarms", "แจ้งเตือน";
    more: "More", "เพิ่มเติม";
    flock_book: "Flock book", "สมุดประจำรุ่น";
    flock_book_says: "Losses, feed, water, hand weighings; a sheet to print", "ไก่ตาย อาหาร น้ำ ชั่งมือ และใบพิมพ์";
    review: "Review", "ตรวจการชั่ง";
    review_says: "Pictures and weights that deserve a look", "ภาพและน้ำหนักที่ควรตรวจ";
    devices: "Devices", "อุปกรณ์";
    devices_says: "Sensors, scales and cameras; install and label them", "เซนเซอร์ เครื่องชั่ง กล้อง ติดตั้งและพิมพ์ป้าย";
    delivery: "Delivery", "การส่งข้อมูล";
    delivery_says: "What waits for the cloud, and how the box is", "ข้อมูลที่รอส่งขึ้นคลาวด์ และสุขภาพของเครื่อง";
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
    said_put_out: "It is put out. Its connection is closed.", "ปิดการใช้งานแล้ว ตัดการเชื่อมต่อแล้ว";
    said_tried_again: "They are on their way again.", "กำลังส่งใหม่";
    said_discarded: "Discarded. They stay written down with the reason.", "ไม่ส่งแล้ว แต่เก็บไว้พร้อมเหตุผล";
    said_brought: "The table was brought in.", "นำเข้าตารางแล้ว";
    // Units and words of birds.
    day: "Day", "อายุวันที่";
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
    scales: "Scales side by side", "เทียบเครื่องชั่ง";
    scales_says: "three days, by their medians", "สามวัน ตามค่ามัธยฐาน";
    scales_help: "A scale that differs by 5 % or more is dirty, drifts, or stands where other birds come. Weigh a known weight on each.", "เครื่องชั่งที่ต่างตั้งแต่ 5 % อาจสกปรก คลาดเคลื่อน หรือวางในจุดที่ไก่ต่างกลุ่ม ลองชั่งตุ้มน้ำหนักที่รู้ค่า";
    against_others: "Against the others", "เทียบเครื่องอื่น";
    scale_agrees: "agrees", "ตรงกัน";
    scale_apart: "differs", "ต่างกัน";
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
    temperature: "Temperature", "อุณหภูมิ";
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
    // Tables.
    standards: "Standards", "มาตรฐาน";
    standards_says: "What a bird of some age is expected to weigh: of the breeders, and your own.", "น้ำหนักที่ควรเป็นตามอายุ ของผู้ผสมพันธุ์และของฟาร์มเอง";
    bring_standard: "Bring your own", "นำเข้าของฟาร์มเอง";
    bring_records: "Bring in a table", "นำเข้าตาราง";
    table: "Table (CSV)", "ตาราง (CSV)";
    table_standard_hint: "Columns age_day, body_weight_g, cum_feed_intake_g; a line a day without a gap", "คอลัมน์ age_day, body_weight_g, cum_feed_intake_g วันละหนึ่งแถวไม่เว้น";
    table_records_hint: "Columns day, kind, part, value, birds, note; kinds are", "คอลัมน์ day, kind, part, value, birds, note โดย kind เป็น";
    table_look: "Look at it first", "ตรวจดูก่อน";
    table_fits: "It fits. Nothing is written yet.", "ใช้ได้ ยังไม่ได้บันทึก";
    table_bring: "Bring it in", "นำเข้า";
    table_again: "What came before is not written twice.", "รายการที่เคยนำเข้าแล้วจะไม่บันทึกซ้ำ";
    table_wrong: "The table does not fit:", "ตารางไม่ถูกต้อง:";
    called: "Name", "ชื่อ";
    source_of: "Who says so", "แหล่งที่มา";
    year: "Year", "ปี (ค.ศ.)";
    lines: "lines", "แถว";
    wrong_standard_taken: "There is a standard of this name and sex. Choose another name.", "มีมาตรฐานชื่อและเพศนี้แล้ว ใช้ชื่ออื่น";
    // Delivery.
    to_cloud: "To the cloud", "ส่งขึ้นคลาวด์";
    wait: "wait", "รายการรอส่ง";
    oldest: "oldest", "เก่าสุด";
    cloud_up: "cloud answers", "คลาวด์ตอบ";
    cloud_down: "cloud does not answer", "คลาวด์ไม่ตอบ";
    cloud_unknown: "not asked yet", "ยังไม่ได้ติดต่อ";
    cloud_disabled: "no cloud set", "ไม่ได้ตั้งคลาวด์";
    last_sent: "Last taken by the cloud", "คลาวด์รับครั้งล่าสุด";
    never_sent: "The cloud has taken nothing yet. All data is safe here.", "คลาวด์ยังไม่เคยรับข้อมูล ข้อมูลทั้งหมดปลอดภัยในเครื่องนี้";
    again_in: "next try in", "ลองใหม่ใน";
    ledger: "Nothing is lost", "ข้อมูลไม่หาย";
    ledger_whole: "all accounted for", "ครบทุกรายการ";
    ledger_differs: "differs by", "ต่างอยู่";
    ledger_says: "Came in = stored + seen before + refused. For the cloud = acknowledged + waiting + given up.", "รับเข้า = เก็บแล้ว + ซ้ำ + ปฏิเสธ  ส่งคลาวด์ = ยืนยันแล้ว + รอส่ง + ส่งไม่สำเร็จ";
    came_in: "Came in", "รับเข้า";
    stored: "Stored", "เก็บแล้ว";
    duplicate: "Seen before", "ซ้ำ";
    refused: "Refused", "ปฏิเสธ";
    for_cloud: "For the cloud", "ส่งคลาวด์";
    acknowledged_by_cloud: "Acknowledged", "ยืนยันแล้ว";
    waiting: "Waiting", "รอส่ง";
    given_up: "Given up", "ส่งไม่สำเร็จ";
    nothing_given_up: "Nothing was given up.", "ไม่มีรายการที่ส่งไม่สำเร็จ";
    box_title: "This box", "เครื่องนี้";
    box_name: "Name", "ชื่อเครื่อง";
    version: "Version", "รุ่นโปรแกรม";
    runway: "Room for days without the cloud:", "เก็บข้อมูลได้โดยไม่มีคลาวด์:";
    disk_free: "Free disk", "ดิสก์ว่าง";
    events_a_day: "Events a day", "รายการต่อวัน";
    redrive: "Try again", "ลองส่งใหม่";
    redrive_chosen: "Try the chosen ones again", "ลองรายการที่เลือกใหม่";
    redrive_all: "Try all again", "ลองทั้งหมดใหม่";
    redrive_who: "An admin can have these tried again.", "ผู้ดูแลระบบสั่งลองใหม่ได้";
    redrive_sure: "Try again?", "ลองส่งใหม่หรือไม่";
    redrive_all_says: "Everything that was given up is tried again.", "ทุกรายการที่ส่งไม่สำเร็จจะถูกลองใหม่";
    redrive_chosen_says: "chosen entries are tried again.", "รายการที่เลือกจะถูกลองใหม่";
    there_are: "There are", "มีทั้งหมด";
    discard: "Discard", "ไม่ส่งแล้ว";
    discard_chosen: "Discard the chosen ones", "ไม่ส่งรายการที่เลือก";
    discard_sure: "Discard for good?", "ไม่ส่งถาวรหรือไม่";
    discard_says: "chosen entries are never sent. They stay written down with your name and reason.", "รายการที่เลือกจะไม่ถูกส่ง แต่เก็บไว้พร้อมชื่อและเหตุผล";
    wrong_choose: "Choose some first.", "เลือกรายการก่อน";
    by_type: "What waits, by type", "รายการรอส่งตามชนิด";
    by_type_says: "Of those that go next, 8,000 at most.", "นับจากรายการที่จะส่งถัดไป ไม่เกิน 8,000";
    repairs: "Repairs", "สิ่งที่ควรซ่อม";
    repairs_sound: "checks are fine", "รายการตรวจปกติ";
    repairs_again: "Test again", "ตรวจอีกครั้ง";
    repair_look: "look", "ควรดู";
    repair_act: "act", "ต้องแก้ไข";
    // Review.
    tab_odd: "To look at", "ควรตรวจ";
    tab_all: "All", "ทั้งหมด";
    on_this_page: "on this page", "รายการในหน้านี้";
    nothing_to_review: "Nothing waits for a look", "ไม่มีรายการที่ต้องตรวจ";
    picture_of: "Picture of the weighing of", "ภาพการชั่งเมื่อ";
    from_picture: "picture", "จากภาพ";
    fine: "Fine", "ถูกต้อง";
    two_birds: "Two birds", "ไก่สองตัว";
    exclude: "Leave out", "ไม่นับ";
    include: "Count again", "นับใหม่";
    older: "Older ones", "รายการเก่ากว่า";
    flag_disagree: "scale and picture disagree", "เครื่องชั่งกับภาพไม่ตรงกัน";
    flag_low_confidence: "picture unsure", "ภาพไม่ชัดเจน";
    flag_no_weight: "no weight", "ไม่มีน้ำหนัก";
    flag_no_picture: "no picture", "ไม่มีภาพ";
    flag_open_long: "open for long", "ยังไม่จบการชั่ง";
    flag_amended: "changed later", "แก้ไขภายหลัง";
    flag_clock_ahead: "clock ahead", "นาฬิกาเร็วไป";
    flag_demo: "demo model", "โมเดลตัวอย่าง";
    flag_excluded: "left out", "ไม่นับรวม";
    // Alarms.
    tab_now: "Now", "ตอนนี้";
    tab_aside: "Put aside", "พักไว้";
    tab_history: "History", "ประวัติ";
    tab_rules: "Rules", "กฎ";
    no_alarms: "Nothing needs you now", "ตอนนี้ไม่มีอะไรต้องทำ";
    state_unack: "waits for you", "รอรับทราบ";
    state_acked: "acknowledged", "รับทราบแล้ว";
    state_returned: "is over, not seen", "จบแล้ว ยังไม่รับทราบ";
    state_shelved: "put aside", "พักไว้";
    state_off: "switched off", "ปิดอยู่";
    state_normal: "normal", "ปกติ";
    since: "since", "เริ่มเมื่อ";
    limit: "limit", "เกณฑ์";
    acknowledged_by: "acknowledged by", "รับทราบโดย";
    comes_back_in: "comes back in", "กลับมาใน";
    acknowledge: "Acknowledge", "รับทราบ";
    shelve: "Put aside for a while", "พักไว้ชั่วคราว";
    unshelve: "Take up again", "ยกเลิกการพัก";
    reason: "Reason", "เหตุผล";
    means: "What it means", "หมายความว่า";
    do_first: "What to do first", "สิ่งที่ต้องทำก่อน";
    what_happened: "What happened", "เหตุการณ์";
    event_raised: "raised", "เกิดขึ้น";
    event_returned: "back to normal", "กลับสู่ปกติ";
    event_acknowledged: "acknowledged", "รับทราบ";
    alarms_day: "Alarms in 24 h", "แจ้งเตือนใน 24 ชม.";
    stands_longest: "Stands longest", "ค้างนานที่สุด";
    top_causes: "Most often, 30 days", "บ่อยที่สุดใน 30 วัน";
    none: "none", "ไม่มี";
    drill: "Drill", "ซ้อมเตือนภัย";
    drill_says: "An alarm like a real one, by every siren and phone. It ends when somebody acknowledges it.", "แจ้งเตือนเหมือนจริงทุกช่องทาง จบเมื่อมีคนกดรับทราบ";
    begin_drill: "Begin a drill now", "เริ่มซ้อมตอนนี้";
    no_drill: "No drill yet: nobody knows whether the siren works.", "ยังไม่เคยซ้อม ไม่มีใครรู้ว่าไซเรนใช้ได้หรือไม่";
    drill_answered: "answered", "มีคนตอบ";
    drill_waiting: "waits for an answer", "รอคนตอบ";
    drill_unanswered: "nobody answered", "ไม่มีใครตอบ";
    to_human: "a human after", "มีคนตอบใน";
    all_alarms: "All alarms", "แจ้งเตือนทั้งหมด";
    nothing_aside: "Nothing is put aside", "ไม่มีรายการที่พักไว้";
    shelved_by: "put aside by", "พักโดย";
    cause_known: "Its cause is known", "ทราบสาเหตุแล้ว";
    event_unshelved: "taken up again", "ยกเลิกการพัก";
    event_suppressed: "hidden", "ซ่อนไว้";
    event_unsuppressed: "shown again", "แสดงอีกครั้ง";
    event_out_of_service: "sensor out of service", "เซนเซอร์หยุดใช้งาน";
    event_in_service: "sensor in service again", "เซนเซอร์กลับมาใช้งาน";
    event_restarted: "the engine began again", "โปรแกรมเริ่มใหม่";
    class_critical: "critical", "วิกฤต";
    class_high: "high", "สำคัญ";
    class_low: "low", "ทั่วไป";
    edited_by: "edited by", "แก้ไขโดย";
    house_mode: "The house is", "โรงเรือนอยู่ในช่วง";
    house_mode_says: "It decides which alarms are heard, until a flock is placed or ends.", "ใช้กำหนดว่าแจ้งเตือนใดจะดัง จนกว่าจะเริ่มหรือจบรุ่น";
    mode_by_flock: "by the flock book", "ตามสมุดประจำรุ่น";
    mode_empty: "empty", "ว่าง";
    mode_pre_heat: "being heated", "อุ่นโรงเรือน";
    mode_growing: "growing", "เลี้ยง";
    mode_catching: "being caught", "จับไก่";
    drill_overdue: "A drill is overdue: none was answered for seven days.", "เลยกำหนดซ้อม ไม่มีการตอบมาเจ็ดวัน";
    drill_planned: "The next is held on", "ครั้งถัดไปวันที่";
    drill_due: "The next is due by", "ควรซ้อมครั้งถัดไปภายใน";
    answer_drill: "I am here: answer the drill", "ฉันอยู่ที่นี่ ตอบการซ้อม";
    begun_by: "begun by", "เริ่มโดย";
    by_schedule: "the schedule", "ตารางเวลา";
    told_after: "told after", "แจ้งถึงใน";
    not_told: "not told", "แจ้งไม่ถึง";
    wrong_acknowledged: "Nobody has to acknowledge it any more.", "ไม่ต้องรับทราบแล้ว";
    wrong_occurrence: "It was raised anew meanwhile. Look at it again.", "เกิดขึ้นใหม่แล้ว โปรดดูอีกครั้ง";
    wrong_over: "It is over: there is nothing to put aside.", "จบแล้ว ไม่มีอะไรให้พัก";
    wrong_too_long: "That is too long for an alarm of this class.", "นานเกินไปสำหรับแจ้งเตือนระดับนี้";
    wrong_not_shelved: "It is not put aside any more.", "ไม่ได้พักไว้แล้ว";
    wrong_is_drill: "A drill is not put aside: answer it.", "การซ้อมพักไม่ได้ ต้องตอบ";
    wrong_drill_over: "The drill is over.", "การซ้อมจบแล้ว";
    wrong_drill_goes_on: "A drill waits for its answer.", "มีการซ้อมที่รอคำตอบอยู่";
    wrong_not_owner: "Alarms are not ready yet, or another engine has them. Try again in a moment.", "ระบบแจ้งเตือนยังไม่พร้อม ลองใหม่อีกครู่";
    rule_on: "on", "เปิด";
    rule_off: "off", "ปิด";
    // Barn and climate.
    ammonia: "Ammonia (NH₃)", "แอมโมเนีย (NH₃)";
    carbon_dioxide: "Carbon dioxide (CO₂)", "คาร์บอนไดออกไซด์ (CO₂)";
    light: "Light", "แสง";
    heat_index: "Heat index", "ดัชนีความร้อน";
    from_set_point: "from the set point", "จากค่าที่ตั้ง";
    data_safe: "All data safe", "ข้อมูลปลอดภัย";
    key_range: "mean, lowest and highest", "ค่าเฉลี่ย ต่ำสุด สูงสุด";
    key_wanted: "wanted", "ช่วงที่ต้องการ";
    key_night: "night", "กลางคืน";
    how_long: "How long", "ช่วงเวลา";
    no_readings: "No readings yet.", "ยังไม่มีค่าที่วัดได้";
    lowest_highest: "Lowest – highest", "ต่ำสุด – สูงสุด";
    in_sight: "in sight", "ของข้อมูล";
    time: "Time", "เวลา";
    lowest: "Lowest", "ต่ำสุด";
    mean: "Mean", "เฉลี่ย";
    highest: "highest", "สูงสุด";
    air_today: "The air today", "อากาศวันนี้";
    probes: "Probes", "หัววัด";
    device: "Device", "อุปกรณ์";
    value: "Value", "ค่า";
    age: "Age", "อายุข้อมูล";
    position: "Position", "ตำแหน่ง";
    quality: "Quality", "คุณภาพ";
    role_inside: "inside", "ในโรงเรือน";
    role_outside: "outside", "นอกโรงเรือน";
    role_water: "water line", "ท่อน้ำ";
    role_scale: "scale", "เครื่องชั่ง";
    role_light: "light", "แสง";
    role_air: "gases", "ก๊าซ";
    sound: "sound", "ใช้ได้";
    fault_range: "out of range", "เกินช่วงที่เป็นไปได้";
    fault_spike: "spike", "ค่ากระโดด";
    fault_rate: "changes too fast", "เปลี่ยนเร็วผิดปกติ";
    fault_stuck: "stuck", "ค่าค้าง";
    fault_gap: "silent", "เงียบไป";
    fault_neighbors: "unlike its neighbors", "ต่างจากหัวอื่น";
    fault_clock: "clock wrong", "นาฬิกาผิด";
    ammonia_over: "NH₃ over 20 ppm", "NH₃ เกิน 20 ppm";
    carbon_over: "CO₂ over 3,000 ppm", "CO₂ เกิน 3,000 ppm";
    dark_hours: "Dark", "เวลามืด";
    dark_longest: "Longest dark stretch", "มืดต่อเนื่องนานสุด";
    // Devices.
    no_devices: "No device is let in yet.", "ยังไม่มีอุปกรณ์";
    last_seen: "Last seen", "เห็นล่าสุด";
    trouble_silent: "silent", "เงียบไป";
    trouble_failing: "cannot be believed", "ค่าเชื่อถือไม่ได้";
    trouble_pending: "waits for approval", "รออนุมัติ";
    trouble_refused: "not let in", "ไม่อนุญาต";
    trouble_rejected: "messages refused", "ข้อความถูกปฏิเสธ";
    trouble_new: "never heard", "ยังไม่เคยส่งข้อมูล";
    trouble_suspect: "deserves a look", "ควรตรวจ";
    trouble_fine: "fine", "ปกติ";
    install: "Install", "ติดตั้ง";
    step_in: "Let in", "อนุญาตแล้ว";
    step_seen: "Seen on the network", "พบในเครือข่าย";
    step_accepted: "A reading was accepted", "รับค่าที่วัดแล้ว";
    step_plausible: "What it says is plausible", "ค่าที่วัดสมเหตุผล";
    step_placed: "Somebody said where it is", "ระบุตำแหน่งแล้ว";
    says_now: "What it says now", "ค่าตอนนี้";
    measures: "It measures", "ใช้วัด";
    where_in_house: "Where in the house", "จุดในโรงเรือน";
    height: "Height", "ความสูง";
    label: "Label", "ป้าย";
    label_says: "A phone's camera reads it and opens this page.", "ใช้กล้องมือถือสแกนเพื่อเปิดหน้านี้";
    address: "Address", "ที่อยู่เว็บ";
    copy: "Copy", "คัดลอก";
    copied: "Copied", "คัดลอกแล้ว";
    user_name: "User name", "ชื่อผู้ใช้";
    station: "Station", "สถานี";
    firmware: "Firmware", "เฟิร์มแวร์";
    usual_interval: "Usually sends every", "ปกติส่งทุก";
    refusals_day: "Refused in 24 h", "ถูกปฏิเสธใน 24 ชม.";
    why_refused: "Why messages were refused", "เหตุที่ข้อความถูกปฏิเสธ";
    nothing_refused: "No message of this device was refused lately.", "ช่วงนี้ไม่มีข้อความที่ถูกปฏิเสธ";
    field: "field", "ช่อง";
    let_in: "Let a device in", "เพิ่มอุปกรณ์";
    let_in_this: "Let it in and make its password", "อนุญาตและสร้างรหัสผ่าน";
    device_id: "Device id", "รหัสอุปกรณ์";
    device_id_hint: "As it stands on the device, such as d-014", "ตามที่ระบุบนอุปกรณ์ เช่น d-014";
    station_hint: "Only for a scale or a camera of one station", "เฉพาะเครื่องชั่งหรือกล้องของสถานีเดียว";
    credential: "Password", "รหัสผ่าน";
    password: "Password", "รหัสผ่าน";
    password_once: "It is shown this once. Type it into the device now.", "แสดงครั้งเดียว ใส่ในอุปกรณ์ตอนนี้";
    password_made: "Made", "สร้างเมื่อ";
    password_none: "It has no password.", "ไม่มีรหัสผ่าน";
    password_two: "The one before is good until", "รหัสเดิมใช้ได้ถึง";
    rotate: "New password", "เปลี่ยนรหัสผ่าน";
    rotate_says: "The one before stays good for a day, so that the device can be changed in peace.", "รหัสเดิมยังใช้ได้อีกหนึ่งวัน เพื่อให้มีเวลาเปลี่ยนในอุปกรณ์";
    rotate_at_once: "The one before ends at once", "ยกเลิกรหัสเดิมทันที";
    revoke: "Put it out", "ปิดการใช้งาน";
    revoke_says: "Its connection closes at once and nothing of it is taken any more. What it has said stays.", "ตัดการเชื่อมต่อทันทีและไม่รับข้อมูลอีก ข้อมูลเดิมยังอยู่";
    revoke_sure: "I mean this device", "ยืนยันอุปกรณ์นี้";
    go_on_install: "Go on to its installation", "ไปขั้นตอนติดตั้ง";
    topic: "Topic", "หัวข้อ (topic)";
    wrong_has_password: "It has a password already: make a new one on its page.", "มีรหัสผ่านแล้ว เปลี่ยนได้ในหน้าของอุปกรณ์";
    wrong_no_password: "It has no password that is good. Let it in first.", "ไม่มีรหัสผ่านที่ใช้ได้ ให้อนุญาตก่อน";
    wrong_two_passwords: "Two passwords of it are good already. Wait for the older one to end, or end it at once.", "มีรหัสผ่านสองชุดอยู่แล้ว รอให้ชุดเก่าหมดอายุ หรือยกเลิกทันที";
    wrong_user_taken: "Another device has this user name.", "ชื่อผู้ใช้นี้เป็นของอุปกรณ์อื่น";
    wrong_id: "An id has 1 to 128 letters, digits, dashes, dots or underscores.", "รหัสใช้ตัวอักษร ตัวเลข ขีด จุด หรือขีดล่าง 1 ถึง 128 ตัว";
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

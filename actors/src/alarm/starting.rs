//! The rules that the program brings: in force until somebody edits them.

use super::rule::{
    AMMONIA, CARBON_DIOXIDE, HUMIDITY, LIGHT, Mode, Rule, SlowMeasure, TEMPERATURE, Test, WATER,
};
use super::state::Side;
use super::way::{Class, Words};

/// The rule of exercises.
pub const DRILL: &str = "drill";
/// The rule of a last exercise that is too long ago.
pub const DRILL_OVERDUE: &str = "drill_overdue";
/// The power of the house has failed.
pub const MAINS_LOST: &str = "mains_lost";
/// What makes noise does not.
pub const SIREN_BROKEN: &str = "siren_broken";
/// The database of the engine does not answer, or will not for long.
pub const ENGINE_DATABASE: &str = "engine_database";
/// A sensor says the same for too long.
pub const SENSOR_STUCK: &str = "sensor_stuck";
/// A sensor says what cannot be.
pub const SENSOR_IMPLAUSIBLE: &str = "sensor_implausible";
/// A way out of the barn does not work.
pub const ENGINE_WAY: &str = "engine_way";

const HEARD_ALWAYS: &[Mode] = &Mode::ALL;
const HEARD_WHEN_HEATED: &[Mode] = &[Mode::PreHeat, Mode::Growing, Mode::Catching];
const HEARD_WITH_BIRDS: &[Mode] = &[Mode::Growing, Mode::Catching];
const HEARD_WHILE_GROWING: &[Mode] = &[Mode::Growing];

const MINUTE: u32 = 60;

/// All rules of the program.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let mut rules = climate();
    rules.extend(devices());
    rules.extend(birds());
    rules.extend(engine());
    rules
}

fn rule(id: &str, class: Class, test: Test, [on_seconds, off_seconds]: [u32; 2], modes: &[Mode]) -> Rule {
    Rule {
        id: id.to_owned(),
        class,
        is_enabled: true,
        test,
        on_seconds,
        off_seconds,
        is_latching: false,
        modes: modes.to_vec(),
        hushed_by: Vec::new(),
        title: Words::default(),
        cause: Words::default(),
        first_action: Words::default(),
    }
}

impl Rule {
    fn says(self, title: [&str; 2], cause: [&str; 2], first_action: [&str; 2]) -> Self {
        let words = |[en, th]: [&str; 2]| Words::new(en, th);
        Self { title: words(title), cause: words(cause), first_action: words(first_action), ..self }
    }

    fn hushed_by(self, rules: &[&str]) -> Self {
        Self { hushed_by: rules.iter().map(|rule| (*rule).to_owned()).collect(), ..self }
    }

    fn latching(self) -> Self {
        Self { is_latching: true, ..self }
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn level(metric: &str, limit: f64, hysteresis: f64) -> Test {
    Test::Level { metric: metric.to_owned(), side: Side::Above, limit, hysteresis, mean_minutes: 15 }
}

fn house(side: Side, chick_margin_c: Option<f64>, absolute_c: Option<f64>) -> Test {
    Test::HouseTemperature {
        side,
        margin_c: 3.0,
        chick_margin_c,
        absolute_c,
        hysteresis_c: 0.5,
        curve: Vec::new(),
    }
}

fn slow(measure: SlowMeasure, side: Side, limit: f64, hysteresis: f64) -> Test {
    Test::Slow { measure, side, limit, hysteresis }
}

fn climate() -> Vec<Rule> {
    let house_hot = house(Side::Above, None, Some(35.0));
    let house_cold = house(Side::Below, Some(2.0), None);
    let jump = Test::Jump { metric: TEMPERATURE.to_owned(), by: 3.0, within_minutes: 10 };
    let no_water = Test::NoFlow { metric: WATER.to_owned(), minutes: 30, is_counter: false };
    vec![
        rule("house_hot", Class::Critical, house_hot, [MINUTE, 5 * MINUTE], HEARD_WHEN_HEATED).says(
            ["House too hot", "โรงเรือนร้อนเกินไป"],
            [
                "Birds die of heat within the hour. Usual causes: fans stopped, pads dry, inlets shut.",
                "ไก่อาจตายจากความร้อนภายในหนึ่งชั่วโมง สาเหตุที่พบบ่อย: พัดลมหยุด แผ่นทำความเย็นแห้ง ช่องลมปิด",
            ],
            [
                "Go to the house. See that the fans turn and the pads are wet; open the doors if they do not.",
                "ไปที่โรงเรือน ตรวจว่าพัดลมหมุนและแผ่นทำความเย็นเปียก หากไม่ ให้เปิดประตู",
            ],
        ),
        rule("house_cold", Class::Critical, house_cold, [3 * MINUTE, 5 * MINUTE], HEARD_WHILE_GROWING).says(
            ["House too cold", "โรงเรือนเย็นเกินไป"],
            [
                "Chicks huddle and smother. Usual causes: heater out, gas empty, too much air.",
                "ลูกไก่จะสุมกันและขาดอากาศ สาเหตุที่พบบ่อย: เครื่องทำความร้อนดับ แก๊สหมด ลมแรงเกินไป",
            ],
            [
                "Look at the heaters and the gas, and close what stands open.",
                "ตรวจเครื่องทำความร้อนและแก๊ส และปิดช่องที่เปิดอยู่",
            ],
        ),
        rule("temperature_jump", Class::Critical, jump, [0, 10 * MINUTE], HEARD_WHILE_GROWING).says(
            ["Temperature jumps", "อุณหภูมิเปลี่ยนเร็ว"],
            [
                "More than 3 °C within 10 minutes: fans stopped, a door stands open, or fire.",
                "เปลี่ยนมากกว่า 3 °C ใน 10 นาที: พัดลมหยุด ประตูเปิด หรือไฟไหม้",
            ],
            ["Go to the house and look for smoke, doors and fans.", "ไปที่โรงเรือน ตรวจควัน ประตู และพัดลม"],
        ),
        rule("no_water", Class::Critical, no_water, [0, 10 * MINUTE], HEARD_WHILE_GROWING)
            .hushed_by(&[MAINS_LOST])
            .says(
                ["No water", "ไม่มีน้ำ"],
                [
                    "Nothing flows while the light is on. In heat birds die within hours.",
                    "ไม่มีน้ำไหลขณะเปิดไฟ หากอากาศร้อนไก่อาจตายภายในไม่กี่ชั่วโมง",
                ],
                ["Look at the pump, the valve and the filter.", "ตรวจปั๊ม วาล์ว และไส้กรอง"],
            ),
        rule(
            "water_low",
            Class::High,
            slow(SlowMeasure::WaterShare, Side::Below, 50.0, 10.0),
            [0, 10 * MINUTE],
            HEARD_WHILE_GROWING,
        )
        .hushed_by(&[MAINS_LOST, "no_water"])
        .says(
            ["Birds drink too little", "ไก่กินน้ำน้อยเกินไป"],
            [
                "Less than half of the same hours of the three days before: a blocked line, or sick birds.",
                "น้อยกว่าครึ่งหนึ่งของช่วงเวลาเดียวกันในสามวันก่อน: ท่อน้ำอุดตันหรือไก่ป่วย",
            ],
            ["Look at the nipples of every line, and at the birds.", "ตรวจหัวจ่ายน้ำทุกแถว และดูอาการไก่"],
        ),
        rule("ammonia", Class::High, level(AMMONIA, 20.0, 2.0), [15 * MINUTE, 15 * MINUTE], HEARD_WITH_BIRDS)
            .says(
                ["Too much ammonia", "แอมโมเนียสูงเกินไป"],
                [
                    "More than 20 ppm harms eyes and lungs. Usual causes: wet litter, too little air.",
                    "เกิน 20 ppm ทำอันตรายต่อตาและปอด สาเหตุที่พบบ่อย: วัสดุรองพื้นเปียก อากาศไม่พอ",
                ],
                ["Raise the minimum ventilation; look for wet litter.", "เพิ่มการระบายอากาศขั้นต่ำ และหาบริเวณที่เปียก"],
            ),
        rule(
            "carbon_dioxide",
            Class::High,
            level(CARBON_DIOXIDE, 3000.0, 200.0),
            [15 * MINUTE, 15 * MINUTE],
            HEARD_WITH_BIRDS,
        )
        .says(
            ["Too much carbon dioxide", "คาร์บอนไดออกไซด์สูงเกินไป"],
            [
                "More than 3000 ppm: the birds' own breath and the heaters' gas do not leave the house.",
                "เกิน 3000 ppm: ลมหายใจของไก่และแก๊สจากเครื่องทำความร้อนไม่ระบายออก",
            ],
            ["Raise the minimum ventilation; look at the heaters.", "เพิ่มการระบายอากาศขั้นต่ำ และตรวจเครื่องทำความร้อน"],
        ),
        rule(
            "humid",
            Class::Low,
            slow(SlowMeasure::HumidityMean, Side::Above, 70.0, 2.0),
            [0, 60 * MINUTE],
            HEARD_WHILE_GROWING,
        )
        .says(
            ["Too humid for two days", "ความชื้นสูงต่อเนื่องสองวัน"],
            [
                "The mean of 48 hours is above 70 % while it is cold outside: litter gets wet.",
                "ค่าเฉลี่ย 48 ชั่วโมงเกิน 70 % ขณะที่ข้างนอกเย็น: วัสดุรองพื้นจะเปียก",
            ],
            ["Ventilate more and heat against it; look at the litter.", "ระบายอากาศมากขึ้นพร้อมให้ความร้อน และตรวจวัสดุรองพื้น"],
        ),
        rule(
            "dark_missing",
            Class::Low,
            slow(SlowMeasure::DarkHours, Side::Below, 6.0, 0.0),
            [0, 0],
            HEARD_WHILE_GROWING,
        )
        .says(
            ["Too little darkness", "เวลามืดไม่พอ"],
            [
                "Birds need six hours of darkness a day, four of them without a break.",
                "ไก่ต้องการความมืดวันละหกชั่วโมง โดยสี่ชั่วโมงต่อเนื่องกัน",
            ],
            ["Look at the clock of the lamps.", "ตรวจตัวตั้งเวลาไฟ"],
        ),
    ]
}

fn devices() -> Vec<Rule> {
    let event = |on: &str, off: &str| Test::DeviceEvent { on: names(&[on]), off: names(&[off]) };
    let kinds = names(&[TEMPERATURE, HUMIDITY, AMMONIA, CARBON_DIOXIDE, LIGHT, WATER]);
    let said = |id: &str| rule(id, Class::Low, Test::Said {}, [0, MINUTE], HEARD_WHEN_HEATED);
    vec![
        rule("sensor_silent", Class::Low, Test::Silent {}, [0, 0], HEARD_WHEN_HEATED)
            .hushed_by(&[MAINS_LOST, ENGINE_DATABASE])
            .says(
                ["Sensor silent", "เซนเซอร์ไม่ส่งข้อมูล"],
                [
                    "Nothing was heard for three times its usual interval: no power, no network, or broken.",
                    "ไม่ได้รับข้อมูลนานกว่าสามเท่าของช่วงปกติ: ไม่มีไฟ ไม่มีเครือข่าย หรือเสีย",
                ],
                ["Look at its power and its network.", "ตรวจไฟเลี้ยงและเครือข่ายของเซนเซอร์"],
            ),
        rule(
            "last_sensor_silent",
            Class::High,
            Test::LastSilent { metrics: kinds },
            [0, 0],
            HEARD_WHEN_HEATED,
        )
        .hushed_by(&[MAINS_LOST, ENGINE_DATABASE])
        .says(
            ["No sensor of this kind speaks", "ไม่มีเซนเซอร์ชนิดนี้ส่งข้อมูลเลย"],
            ["The house is blind: alarms of this kind cannot ring.", "โรงเรือนมองไม่เห็น: สัญญาณเตือนชนิดนี้จะไม่ดัง"],
            ["Measure by hand now, then mend a sensor.", "วัดด้วยมือทันที แล้วซ่อมเซนเซอร์"],
        ),
        said(SENSOR_STUCK).says(
            ["Sensor stuck", "ค่าเซนเซอร์ค้าง"],
            ["It says the same for too long.", "ค่าเดิมนานเกินไป"],
            ["Clean it, or put another in its place.", "ทำความสะอาดหรือเปลี่ยนใหม่"],
        ),
        said(SENSOR_IMPLAUSIBLE).says(
            ["Sensor implausible", "ค่าเซนเซอร์ไม่น่าเชื่อถือ"],
            ["It says what cannot be, or differs from its neighbors.", "ค่าเป็นไปไม่ได้หรือต่างจากตัวข้างเคียง"],
            ["Compare it with one you trust.", "เทียบกับเครื่องวัดที่เชื่อถือได้"],
        ),
        rule(
            MAINS_LOST,
            Class::Critical,
            event("power.mains.lost", "power.mains.restored"),
            [10, MINUTE],
            HEARD_ALWAYS,
        )
        .latching()
        .says(
            ["Mains lost", "ไฟฟ้าดับ"],
            [
                "No power: fans, heaters and pumps stand still unless the generator runs.",
                "ไม่มีไฟฟ้า: พัดลม เครื่องทำความร้อน และปั๊มหยุด ยกเว้นเครื่องปั่นไฟทำงาน",
            ],
            [
                "See that the generator runs; open the house if it does not.",
                "ตรวจว่าเครื่องปั่นไฟทำงาน หากไม่ ให้เปิดโรงเรือน",
            ],
        ),
        rule(
            "fan_failed",
            Class::Critical,
            event("fan.failed", "fan.recovered"),
            [10, MINUTE],
            HEARD_WHEN_HEATED,
        )
        .hushed_by(&[MAINS_LOST])
        .says(
            ["Fan failed", "พัดลมขัดข้อง"],
            ["The relay of a fan reports a fault.", "รีเลย์ของพัดลมแจ้งว่าขัดข้อง"],
            ["Look at the fan and its motor protection.", "ตรวจพัดลมและตัวป้องกันมอเตอร์"],
        ),
        rule(
            SIREN_BROKEN,
            Class::Critical,
            event("siren.failed", "siren.recovered"),
            [10, MINUTE],
            HEARD_ALWAYS,
        )
        .latching()
        .says(
            ["Siren broken", "ไซเรนเสีย"],
            ["The siren would not be heard.", "ไซเรนจะไม่ดัง"],
            [
                "Mend it and hold a drill; watch the house until then.",
                "ซ่อมและซ้อมสัญญาณเตือน เฝ้าโรงเรือนจนกว่าจะเสร็จ",
            ],
        ),
    ]
}

fn birds() -> Vec<Rule> {
    let deaths = |id: &str, measure: SlowMeasure, limit: f64| {
        let rule = rule(id, Class::High, slow(measure, Side::Above, limit, 0.0), [0, 0], HEARD_WITH_BIRDS);
        rule.says(
            ["Too many deaths", "ไก่ตายมากเกินไป"],
            [
                "More birds die than should: disease, heat, water or air.",
                "ไก่ตายมากกว่าปกติ: โรค ความร้อน น้ำ หรืออากาศ",
            ],
            ["Open some of the dead, and call the vet.", "ผ่าซากดู และเรียกสัตวแพทย์"],
        )
    };
    vec![
        deaths("deaths_of_day", SlowMeasure::DeathsOfDay, 0.5),
        deaths("deaths", SlowMeasure::DeathsBeyondGuide, 0.0),
        rule(
            "growth",
            Class::Low,
            slow(SlowMeasure::DaysBelowStandard, Side::Above, 1.0, 0.0),
            [0, 0],
            HEARD_WHILE_GROWING,
        )
        .says(
            ["Birds grow too slowly", "ไก่โตช้า"],
            [
                "For two days the mean weight is surely below 95 % of the standard.",
                "น้ำหนักเฉลี่ยต่ำกว่า 95 % ของมาตรฐานอย่างแน่นอนสองวันติดต่อกัน",
            ],
            ["Look at feed, water and temperature of the last days.", "ตรวจอาหาร น้ำ และอุณหภูมิของวันที่ผ่านมา"],
        ),
    ]
}

fn engine() -> Vec<Rule> {
    let said = |id: &str, class: Class| rule(id, class, Test::Said {}, [0, MINUTE], HEARD_ALWAYS);
    let overdue = slow(SlowMeasure::DaysSinceDrill, Side::Above, 7.0, 0.0);
    vec![
        said("engine_disk", Class::Low).says(
            ["Disk fills", "ดิสก์ใกล้เต็ม"],
            ["The disk of the box is nearly full.", "ดิสก์ของเครื่องใกล้เต็ม"],
            ["Look at the retention settings, or get a larger disk.", "ตรวจการตั้งค่าเก็บข้อมูลหรือเพิ่มดิสก์"],
        ),
        said("engine_disk_full", Class::High).says(
            ["Disk almost full", "ดิสก์เกือบเต็มแล้ว"],
            ["Soon nothing can be stored.", "อีกไม่นานจะเก็บข้อมูลไม่ได้"],
            ["Make room today.", "เพิ่มพื้นที่ภายในวันนี้"],
        ),
        said(ENGINE_DATABASE, Class::High).says(
            ["Database away", "ฐานข้อมูลไม่ตอบ"],
            [
                "Nothing is stored, and alarms of readings cannot ring.",
                "เก็บข้อมูลไม่ได้ และสัญญาณเตือนจากค่าวัดจะไม่ดัง",
            ],
            [
                "Look at the box: power, disk, farmiq-edge doctor.",
                "ตรวจเครื่อง: ไฟ ดิสก์ และคำสั่ง farmiq-edge doctor",
            ],
        ),
        said("engine_delivery", Class::Low).says(
            ["Cloud not reached", "ส่งข้อมูลขึ้นคลาวด์ไม่ได้"],
            ["Data waits in the box; nothing is lost.", "ข้อมูลรออยู่ในเครื่อง ไม่สูญหาย"],
            ["Look at the internet connection.", "ตรวจอินเทอร์เน็ต"],
        ),
        said("engine_clock", Class::Low).says(
            ["Clock not believed", "นาฬิกาเครื่องไม่น่าเชื่อถือ"],
            ["The clock of the box is wrong, or nothing bears it out.", "นาฬิกาของเครื่องผิดหรือไม่มีสิ่งยืนยัน"],
            ["Set the clock, or let it reach a time server.", "ตั้งเวลาหรือให้เครื่องเชื่อมต่อเซิร์ฟเวอร์เวลา"],
        ),
        said("engine_certificate", Class::Low).says(
            ["Certificate ends", "ใบรับรองใกล้หมดอายุ"],
            ["Devices will not be able to connect when it has ended.", "เมื่อหมดอายุ อุปกรณ์จะเชื่อมต่อไม่ได้"],
            ["Renew it.", "ต่ออายุใบรับรอง"],
        ),
        said("engine_backup", Class::Low).says(
            ["No backup", "ไม่มีข้อมูลสำรอง"],
            ["The last backup is too old.", "ข้อมูลสำรองล่าสุดเก่าเกินไป"],
            ["Make one, and see why it was not made.", "สำรองข้อมูลและหาสาเหตุ"],
        ),
        said(ENGINE_WAY, Class::High).says(
            ["A way out of the barn fails", "ช่องทางแจ้งเตือนขัดข้อง"],
            ["An alarm would not be told by it.", "สัญญาณเตือนจะไม่ถูกส่งทางช่องทางนี้"],
            ["Try it with farmiq-edge alarm drill.", "ทดลองด้วย farmiq-edge alarm drill"],
        ),
        rule(DRILL, Class::Critical, Test::Said {}, [0, 0], HEARD_ALWAYS).says(
            ["Drill", "ซ้อมสัญญาณเตือน"],
            ["An exercise: every way out is used as in earnest.", "การซ้อม: ใช้ทุกช่องทางเหมือนจริง"],
            ["Acknowledge it with your name.", "กดรับทราบพร้อมชื่อของคุณ"],
        ),
        rule(DRILL_OVERDUE, Class::Low, overdue, [0, 0], HEARD_ALWAYS).says(
            ["Drill overdue", "เลยกำหนดซ้อม"],
            ["The alarm was not tried out for more than seven days.", "ไม่ได้ทดลองสัญญาณเตือนมานานกว่าเจ็ดวัน"],
            ["Hold a drill.", "ทำการซ้อม"],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_speaks_both_languages() {
        let mut names = BTreeSet::new();
        for rule in rules() {
            assert!(names.insert(rule.id.clone()), "{} is there twice", rule.id);
            for words in [&rule.title, &rule.cause, &rule.first_action] {
                assert!(!words.en.is_empty() && !words.th.is_empty(), "{}", rule.id);
            }
        }
    }

    #[test]
    fn only_what_must_be_seen_by_a_person_latches() {
        let latching: Vec<_> =
            rules().into_iter().filter(|rule| rule.is_latching).map(|rule| rule.id).collect();
        assert_eq!(latching, [MAINS_LOST, SIREN_BROKEN]);
    }
}

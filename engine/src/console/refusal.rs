//! Why a message was refused, and what to do about it, in words for whoever stands beside the device.

use schema::clock::Timestamp;
use schema::store::reject::Recorded;
use schema::wire::reject::Reason;

use super::frame::Frame;
use super::text::Lang;
use super::words::span;

/// The same in both languages.
type Both = (&'static str, &'static str);

/// A refusal in a line.
pub(crate) struct RefusalRow {
    /// Why.
    pub(crate) why: String,
    /// What to do.
    pub(crate) remedy: &'static str,
    /// When, and what was sent where.
    pub(crate) says: String,
}

impl RefusalRow {
    /// A refusal as it was recorded.
    pub(crate) fn of(f: &Frame, row: &Recorded, now: Timestamp) -> Self {
        let age = (now - row.rejected_at).num_milliseconds() as f64 / 1000.0;
        let when = format!("{} {}", span(f.t, age), f.t.ago);
        let field = row.detail.as_ref().map(|field| format!("{}: {field}", f.t.field));
        let size = format!("{} B", row.size_bytes);
        let parts = [Some(when), field, Some(row.topic.clone()), Some(size), Some(row.reason.clone())];
        let says = parts.into_iter().flatten().collect::<Vec<_>>().join(" · ");
        match Reason::parse(&row.reason) {
            Some(reason) => {
                Self { why: pick(f.lang, why(reason)).to_owned(), remedy: pick(f.lang, remedy(reason)), says }
            }
            None => Self { why: row.reason.clone(), remedy: "", says },
        }
    }
}

fn pick(lang: Lang, (en, th): Both) -> &'static str {
    match lang {
        Lang::En => en,
        Lang::Th => th,
    }
}

/// Why, short, for a list of devices.
pub(crate) fn in_short(lang: Lang, reason: &str) -> Option<&'static str> {
    Reason::parse(reason).map(|reason| pick(lang, why(reason)))
}

fn why(reason: Reason) -> Both {
    match reason {
        Reason::MessageTooLarge => ("The message is too large", "ข้อความใหญ่เกินไป"),
        Reason::AclDenied => ("It published where it may not", "ส่งไปยังหัวข้อที่ไม่ได้รับอนุญาต"),
        Reason::TopicInvalid => ("The topic is none that the engine knows", "ไม่รู้จักหัวข้อ (topic) นี้"),
        Reason::BodyNotJson => ("What it sent is no JSON", "ข้อมูลไม่ใช่ JSON"),
        Reason::BodyNotObject => ("What it sent is JSON, but no object", "JSON ไม่ได้อยู่ในรูปแบบวัตถุ"),
        Reason::DialectDisabled => ("This way of writing messages is switched off", "รูปแบบข้อความนี้ถูกปิดไว้"),
        Reason::FieldMissing => ("A field is missing", "ขาดข้อมูลบางช่อง"),
        Reason::FieldType => ("A field is of the wrong kind", "ชนิดข้อมูลบางช่องไม่ถูกต้อง"),
        Reason::FieldInvalid => {
            ("A field is empty, too long or has a forbidden character", "บางช่องว่าง ยาวเกินไป หรือมีอักขระต้องห้าม")
        }
        Reason::SchemaVersionUnsupported => ("Its schema version is not known", "ไม่รู้จักรุ่นของรูปแบบข้อมูล"),
        Reason::TsMissing => ("It says no time", "ไม่มีเวลา"),
        Reason::TsInvalid => ("Its time cannot be read", "อ่านเวลาไม่ได้"),
        Reason::TenantMismatch => ("Topic and message name different tenants", "ผู้เช่าในหัวข้อกับในข้อความไม่ตรงกัน"),
        Reason::ScopeMismatch => ("Topic and message name different barns", "โรงเรือนในหัวข้อกับในข้อความไม่ตรงกัน"),
        Reason::DeviceMismatch => {
            ("Topic and message name different devices", "อุปกรณ์ในหัวข้อกับในข้อความไม่ตรงกัน")
        }
        Reason::EventTypeNotTelemetry => ("A topic for readings had something else", "หัวข้อสำหรับค่าที่วัดมีข้อมูลอื่น"),
        Reason::MetricMismatch => {
            ("Topic and message name different metrics", "ชนิดค่าที่วัดในหัวข้อกับในข้อความไม่ตรงกัน")
        }
        Reason::EventTypeMismatch => {
            ("Topic and message name different events", "เหตุการณ์ในหัวข้อกับในข้อความไม่ตรงกัน")
        }
        Reason::StationNotAllowed => ("Its station is not let in", "สถานีนี้ยังไม่ได้รับอนุญาต"),
        Reason::StationFarmMismatch => ("Its station belongs to another farm", "สถานีนี้เป็นของฟาร์มอื่น"),
        Reason::StationBarnMismatch => ("Its station belongs to another barn", "สถานีนี้เป็นของโรงเรือนอื่น"),
        Reason::DeviceNotAllowed => ("It is not let in", "อุปกรณ์นี้ยังไม่ได้รับอนุญาต"),
        Reason::DevicePending => ("It waits for approval", "อุปกรณ์รออนุมัติ"),
        Reason::StationPending => ("Its station waits for approval", "สถานีรออนุมัติ"),
        Reason::DeviceFarmMismatch => ("It belongs to another farm", "อุปกรณ์นี้เป็นของฟาร์มอื่น"),
        Reason::DeviceBarnMismatch => ("It belongs to another barn", "อุปกรณ์นี้เป็นของโรงเรือนอื่น"),
        Reason::NoRoute => ("The engine knows no such event", "ไม่รู้จักเหตุการณ์นี้"),
        Reason::ValueNotNumber => ("Its value is no number", "ค่าที่วัดไม่ใช่ตัวเลข"),
        Reason::ValueNotFinite => ("Its value is endless or undefined", "ค่าที่วัดเป็นอนันต์หรือไม่มีค่า"),
        Reason::PayloadKeyInvalid => {
            ("What it says lacks something, or has it in the wrong form", "เนื้อหาขาดหรือผิดรูปแบบ")
        }
        Reason::SessionConflict => {
            ("The weighing has the number of another station's", "เลขการชั่งซ้ำกับของสถานีอื่น")
        }
        Reason::SessionClosed => ("The weighing was cancelled", "การชั่งถูกยกเลิกแล้ว"),
    }
}

/// What helps. Reasons with one remedy share it.
fn remedy(reason: Reason) -> Both {
    match reason {
        Reason::MessageTooLarge => {
            ("Have it send pictures by upload, not in messages.", "ให้ส่งภาพด้วยการอัปโหลด ไม่ใช่ในข้อความ")
        }
        Reason::AclDenied
        | Reason::TenantMismatch
        | Reason::ScopeMismatch
        | Reason::DeviceMismatch
        | Reason::MetricMismatch
        | Reason::EventTypeMismatch => (
            "Set tenant, farm, barn and device in the device's settings to what stands on its label; topic and message must say the same.",
            "ตั้งค่าผู้เช่า ฟาร์ม โรงเรือน และรหัสอุปกรณ์ให้ตรงกับป้าย หัวข้อและข้อความต้องตรงกัน",
        ),
        Reason::TopicInvalid | Reason::EventTypeNotTelemetry | Reason::NoRoute => (
            "Correct the topic in the device's settings: that of its readings stands on this page.",
            "แก้หัวข้อ (topic) ในการตั้งค่าอุปกรณ์ หัวข้อที่ถูกต้องอยู่ในหน้านี้",
        ),
        Reason::BodyNotJson
        | Reason::BodyNotObject
        | Reason::FieldMissing
        | Reason::FieldType
        | Reason::FieldInvalid
        | Reason::SchemaVersionUnsupported
        | Reason::PayloadKeyInvalid => (
            "The device's program writes it wrong: update its firmware, or show this line to its maker.",
            "โปรแกรมของอุปกรณ์เขียนข้อมูลผิด ให้อัปเดตเฟิร์มแวร์หรือแจ้งผู้ผลิต",
        ),
        Reason::DialectDisabled => (
            "Allow it in the engine's settings (ingress), or update the device's firmware.",
            "เปิดใช้ในการตั้งค่าเครื่อง (ingress) หรืออัปเดตเฟิร์มแวร์ของอุปกรณ์",
        ),
        Reason::TsMissing | Reason::TsInvalid => (
            "Set the clock and the format of its time: year first, with its zone, as in 2026-02-12T09:32:15+07:00.",
            "ตั้งนาฬิกาและรูปแบบเวลา: ปี ค.ศ. ก่อน และมีเขตเวลา เช่น 2026-02-12T09:32:15+07:00",
        ),
        Reason::StationNotAllowed | Reason::StationPending => {
            ("Let its station in: farmiq-edge station add.", "อนุญาตสถานี: farmiq-edge station add")
        }
        Reason::StationFarmMismatch
        | Reason::StationBarnMismatch
        | Reason::DeviceFarmMismatch
        | Reason::DeviceBarnMismatch => (
            "It was moved, or its settings are those of another barn: let it in for this barn, or correct them.",
            "อุปกรณ์ถูกย้าย หรือตั้งค่าเป็นโรงเรือนอื่น ให้อนุญาตในโรงเรือนนี้หรือแก้การตั้งค่า",
        ),
        Reason::DeviceNotAllowed | Reason::DevicePending => ("Let it in on this page.", "อนุญาตได้ในหน้านี้"),
        Reason::ValueNotNumber | Reason::ValueNotFinite => (
            "The sensor is not connected or broken: look at its cable and its probe.",
            "หัววัดหลุดหรือเสีย ตรวจสายและหัววัด",
        ),
        Reason::SessionConflict => (
            "Two stations number their weighings alike: give each its own station id.",
            "สองสถานีใช้เลขการชั่งชุดเดียวกัน ให้ตั้งรหัสสถานีไม่ซ้ำกัน",
        ),
        Reason::SessionClosed => ("Nothing: weigh again.", "ไม่ต้องทำอะไร ชั่งใหม่ได้"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_and_a_remedy_in_both_languages() {
        let is_thai = |text: &str| text.chars().any(|c| ('\u{e00}'..='\u{e7f}').contains(&c));
        for reason in Reason::ALL {
            for (en, th) in [why(*reason), remedy(*reason)] {
                assert!(en.is_ascii() && !en.is_empty() && is_thai(th), "{}: {en} {th}", reason.code());
            }
        }
        assert_eq!(in_short(Lang::En, "TS_INVALID"), Some("Its time cannot be read"));
        assert_eq!(in_short(Lang::En, "NOBODY_KNOWS"), None);
    }
}

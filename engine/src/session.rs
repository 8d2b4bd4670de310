//! `farmiq-edge session`: lists weighings, and keeps them out of the statistics.

use actors::session::flag::{self, Flag, flags};
use actors::session::mark::{MarkDesk, Weighing};
use schema::clock::{Clock, Timestamp};
use schema::store::session::list::{self as rows, Listed, Wanted};
use schema::store::session::mark::Mark;
use schema::wire::time::format;
use serde_json::{Value, json};

use crate::author::author;
use crate::cli::session::{SessionCommand, SessionList, SessionName};
use crate::config::Config;
use crate::device::with_database;
use crate::tree;

/// Marks that a list shows.
const MARKS_MAX: i64 = 1000;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: SessionCommand, config: &Config) -> anyhow::Result<String> {
    let store = tree::store_alone(&with_database(config)?)?;
    let desk = MarkDesk { reads: store.reads(), store, clock: Clock::system() };
    let author = author();
    let named = |name: &SessionName| (name.tenant.clone(), name.session.clone());
    Ok(match wish {
        SessionCommand::List(wanted) => list(&desk, &wanted, &author.actor).await?,
        SessionCommand::Exclude { session: name, weight, reason } => {
            let (tenant_id, session_id) = &named(&name);
            let weighing = Weighing { tenant_id, session_id, weight_id: weight };
            said(&desk.exclude(weighing, &reason, &author).await?, name.json)
        }
        SessionCommand::Include { session: name, weight, reason } => {
            let (tenant_id, session_id) = &named(&name);
            let weighing = Weighing { tenant_id, session_id, weight_id: weight };
            said(&desk.include(weighing, reason.as_deref(), &author).await?, name.json)
        }
        SessionCommand::Review { session: name, reason } => {
            let names = [&*name.tenant, &*name.session];
            said(&desk.review(names, reason.as_deref(), &author).await?, name.json)
        }
        SessionCommand::Marks(name) => {
            let marks = desk.list([&name.tenant, &name.session], None, MARKS_MAX).await?;
            marks.iter().map(|mark| said(mark, name.json)).collect()
        }
    })
}

async fn list(desk: &MarkDesk, args: &SessionList, reviewer: &str) -> anyhow::Result<String> {
    let wanted = Wanted {
        tenant_id: &args.tenant,
        from: args.from,
        to: args.to,
        barn_id: args.barn.as_deref(),
        batch_id: args.batch.as_deref(),
        reviewer,
        ..Wanted::default()
    };
    let now = desk.clock.now();
    let flag = args.flag.as_deref().and_then(|wanted| Flag::ALL.iter().find(|(word, _)| *word == wanted));
    let is_wanted = |listed: &Listed| flag.is_none_or(|(_, flag)| flag::has(listed, *flag, now));
    let rows_max = usize::try_from(args.limit).unwrap_or_default();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let left = args.limit - i64::try_from(found.len()).unwrap_or(args.limit);
        let read = async |conn: &mut _| rows::sifted(conn, &wanted, after, left, &is_wanted).await;
        let page = desk.reads.run("sessions", read).await?;
        found.extend(page.rows);
        after = page.next;
        if after.is_none() || found.len() >= rows_max {
            break;
        }
    }
    let line = |listed: &Listed| if args.json { object(listed, now) } else { line(listed, now) };
    Ok(found.iter().map(line).collect())
}

fn words(listed: &Listed, now: Timestamp) -> Vec<&'static str> {
    flags(listed, now).into_iter().map(Flag::as_str).collect()
}

fn line(listed: &Listed, now: Timestamp) -> String {
    let session = &listed.session;
    let kg = |weight: Option<f64>| weight.map_or_else(|| "-".to_owned(), |kg| format!("{kg:.3} kg"));
    let read = listed.reading.as_ref().and_then(|reading| reading.weight_kg);
    format!(
        "{}  {}  {}  {}  scale {}  image {}  {}\n",
        format(listed.weighed_at),
        session.session_id,
        session.barn_id,
        session.status.as_str(),
        kg(session.final_weight_kg),
        kg(read),
        words(listed, now).join(" "),
    )
    .replace("  \n", "\n")
}

fn object(listed: &Listed, now: Timestamp) -> String {
    let (session, reading) = (&listed.session, listed.reading.as_ref());
    let object: Value = json!({"session_id": session.session_id, "barn_id": session.barn_id,
        "batch_id": session.batch_id, "status": session.status.as_str(),
        "weighed_at": format(listed.weighed_at), "final_weight_kg": session.final_weight_kg,
        "image_count": session.image_count, "media_id": listed.image_id,
        "predicted_weight_kg": reading.and_then(|reading| reading.weight_kg),
        "confidence": reading.map(|reading| reading.confidence), "flags": words(listed, now)});
    format!("{object}\n")
}

fn said(mark: &Mark, is_for_programs: bool) -> String {
    if is_for_programs {
        let mark = json!({"id": mark.id, "session_id": mark.session_id, "weight_id": mark.weight_id,
            "kind": mark.kind, "ends": mark.ends, "reason": mark.reason, "author": mark.author,
            "created_at": format(mark.created_at)});
        return format!("{mark}\n");
    }
    let what = mark.weight_id.map_or_else(String::new, |weight| format!(" weight {weight}"));
    let reason = mark.reason.as_ref().map_or_else(String::new, |reason| format!("  {reason}"));
    format!(
        "{}  {}{what}  {}  {}{reason}\n",
        format(mark.created_at),
        mark.session_id,
        mark.kind,
        mark.author
    )
}

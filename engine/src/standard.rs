//! `farmiq-edge standard`: what birds are expected to weigh.

use std::fmt::Write;

use actors::flock::desk::NewStandard;
use actors::flock::desk::own::OwnStandard;
use actors::flock::standard::Sex;
use anyhow::Context;
use serde_json::json;

use crate::author::author;
use crate::cli::flock::StandardCommand;
use crate::config::Config;
use crate::flock::desk;

/// Rows that a list shows.
const LIST_ROWS_MAX: i64 = 1000;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: StandardCommand, config: &Config) -> anyhow::Result<String> {
    let desk = desk(config)?;
    match wish {
        StandardCommand::List { tenant, json } => {
            let sets = desk.standards(tenant.as_deref(), LIST_ROWS_MAX).await?;
            let line = |set: &schema::store::flock::standard::StandardSet| {
                if json {
                    let set = json!({"id": set.id, "tenant_id": set.tenant_id, "name": set.name, "kind": set.kind,
                        "genetic_line_code": set.genetic_line_code, "sex": set.sex, "source": set.source,
                        "year": set.year});
                    format!("{set}\n")
                } else {
                    format!(
                        "{}  {:<9}  {:<10}  {}  ({}, {})\n",
                        set.id, set.kind, set.sex, set.name, set.source, set.year
                    )
                }
            };
            Ok(sets.iter().map(line).collect())
        }
        StandardCommand::Import(args) => {
            let csv = std::fs::read_to_string(&args.file);
            let csv = csv.with_context(|| format!("read {}", args.file.display()))?;
            let new = NewStandard {
                tenant_id: args.tenant,
                name: args.name,
                kind: args.kind,
                genetic_line_code: args.line,
                sex: Sex::parse(&args.sex).unwrap_or(Sex::AsHatched),
                source: args.source,
                year: args.year,
                csv,
            };
            let (set, standard) = desk.import_standard(&new, args.dry_run, &author()).await?;
            let days = standard.days().len();
            Ok(if args.dry_run {
                format!("{days} days are good; nothing was written\n")
            } else {
                format!("{}  {days} days\n", set.id)
            })
        }
        StandardCommand::Derive(args) => {
            let wish = OwnStandard {
                tenant_id: args.tenant,
                farm_id: args.farm,
                barn_id: args.barn,
                name: args.name,
                genetic_line_code: args.line,
                sex: Sex::parse(&args.sex).unwrap_or(Sex::AsHatched),
                flocks_min: usize::from(args.flocks_min),
            };
            let (set, standard) = desk.derive_standard(&wish, args.dry_run, &author()).await?;
            let mut text = format!("{}\nDAY  GRAMS   FEED  FLOCKS\n", set.source);
            for day in standard.days() {
                let feed = day.cum_feed_intake_g.map_or_else(|| "-".to_owned(), |feed| format!("{feed:.0}"));
                let flocks = day.flocks.unwrap_or_default();
                let _ =
                    writeln!(text, "{:>3}  {:>5.0}  {feed:>5}  {flocks:>6}", day.age_day, day.body_weight_g);
            }
            text += &if args.dry_run { "nothing was written\n".to_owned() } else { format!("{}\n", set.id) };
            Ok(text)
        }
    }
}

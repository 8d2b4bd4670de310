//! Redrive: jobs that were given up get their attempts once more.

use schema::clock::Clock;
use schema::id::Uuid;
use schema::store::dead_letter::{self, Source};
use schema::store::inference::claim;
use schema::store::{Store, StoreError};

use super::InferenceHub;

/// Dead letters read at once.
const LETTERS_PER_PAGE: i64 = 100;

impl InferenceHub {
    /// Has the jobs of dead letters tried again: these letters or all, of these tenants or of all. Returns how many.
    ///
    /// # Errors
    /// When the database fails; the jobs so far are tried again all the same.
    pub async fn redrive(
        &self,
        store: &Store,
        clock: &Clock,
        ids: Option<&[Uuid]>,
        tenants: Option<&[String]>,
    ) -> Result<u64, StoreError> {
        let (mut redriven, mut after) = (0, Uuid::nil());
        loop {
            let read = async |conn: &mut _| {
                dead_letter::open(conn, Source::Inference, ids, tenants, after, LETTERS_PER_PAGE).await
            };
            let letters = store.run("dead_letters", read).await?;
            let Some(last) = letters.last() else { return Ok(redriven) };
            after = last.id;
            for letter in letters {
                let now = clock.now();
                let work = async |conn: &mut _| claim::redrive(conn, &letter, now).await;
                if let Some(job) = store.run("inference_redrive", work).await? {
                    redriven += 1;
                    self.announce(&job.tenant_id, job.id, job.session_id.is_some());
                }
            }
        }
    }
}

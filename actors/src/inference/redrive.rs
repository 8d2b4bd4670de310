//! Redrive: jobs that were given up get their attempts once more.

use schema::clock::Clock;
use schema::id::Uuid;
use schema::store::dead_letter::{OpenLetters, Source};
use schema::store::inference::claim;
use schema::store::{Store, StoreError};

use super::InferenceHub;

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
        let (mut open, mut redriven) = (OpenLetters::new(Source::Inference, ids, tenants), 0);
        loop {
            let page = store.run("dead_letters", async |conn| open.next(conn).await).await?;
            if page.is_empty() {
                return Ok(redriven);
            }
            for letter in page {
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

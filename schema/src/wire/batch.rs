//! Batches to the cloud: what is sent and what comes back.

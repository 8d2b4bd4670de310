//! Images: offered uploads, completed objects, and the store they lie in.

pub mod filesystem;
pub mod s3;
pub mod store;

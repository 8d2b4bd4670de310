//! Images: offered uploads, completed objects, and the store they lie in.

pub mod completion;
pub mod filesystem;
pub mod limit;
pub mod name;
pub mod s3;
pub mod store;
pub mod watch;

//! Images: offered uploads, completed objects, and the store they lie in.

pub mod store;

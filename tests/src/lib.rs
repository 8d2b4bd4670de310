//! The fixtures of the integration tests: a real database, a whole barn in process, devices and the judge of a cloud.

pub mod barn;
pub mod certificates;
pub mod clients;
pub mod descriptors;
pub mod device;
pub mod engine;
pub mod faketime;
pub mod http;
pub mod load;
pub mod mosquitto;
pub mod objects;
pub mod onnx;
pub mod paho;
pub mod picture;
pub mod plan;
pub mod postgres;
pub mod python;
pub mod rabbitmq;
pub mod raw;
pub mod server;
pub mod settings;
pub mod site;
pub mod stations;
pub mod volume;
pub mod wait;
pub mod witness;

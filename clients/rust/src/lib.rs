//! The contract of visavis for Rust: messages and stubs that build.rs makes, over a channel.

pub mod grpc;

pub mod google {
    pub mod rpc {
        include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
    }
}

pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/visavis.v1.rs"));
}

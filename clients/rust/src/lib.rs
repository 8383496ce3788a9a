//! The protocol of visavis for Rust: a channel, and the messages and stubs from build.rs.

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

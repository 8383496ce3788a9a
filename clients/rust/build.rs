//! Generates messages and stubs from the protos of visavis and from gRPC's own.

use std::fmt::Write;

use prost_build::{Config, Service, ServiceGenerator};

fn main() -> std::io::Result<()> {
    Config::new().service_generator(Box::new(Stubs)).compile_protos(
        &[
            "visavis/v1/vision.proto",
            "google/rpc/code.proto",
            "google/rpc/error_details.proto",
            "google/rpc/status.proto",
            "grpc/health/v1/health.proto",
        ],
        &["../../protos", "../protos"],
    )
}

/// Generates a struct around a channel for each service, with a method for each RPC.
struct Stubs;

impl ServiceGenerator for Stubs {
    fn generate(&mut self, service: Service, code: &mut String) {
        let Service { name, package, proto_name, methods, .. } = service;
        let mut line = |text: String| writeln!(code, "{text}").expect("a String takes any text");
        line(format!("pub struct {name}Stub<'a>(pub &'a crate::grpc::Channel);"));
        line(format!("impl {name}Stub<'_> {{"));
        for method in methods {
            let (request, answer) = (method.input_type, method.output_type);
            let (kind, result) = if method.server_streaming {
                ("server_streaming", format!("crate::grpc::Streaming<{answer}>"))
            } else {
                ("unary", answer)
            };
            line(format!(
                "pub async fn {}(&self, request: &{request}, call: &crate::grpc::Call) \
                 -> Result<{result}, crate::grpc::Status> {{",
                method.name
            ));
            let path = format!("/{package}.{proto_name}/{}", method.proto_name);
            line(format!("self.0.{kind}(\"{path}\", request, call).await }}"));
        }
        line("}".to_owned());
    }
}

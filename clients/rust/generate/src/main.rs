//! Generates `../src/generated` from the protos of visavis and from gRPC's own.

use prost_build::Config;

fn main() -> std::io::Result<()> {
    let here = env!("CARGO_MANIFEST_DIR");
    let protos = [format!("{here}/../../../protos"), format!("{here}/../../protos")];
    Config::new()
        .out_dir(format!("{here}/../src/generated"))
        // A picture is shared between the attempts of a call, and between calls.
        .bytes([".visavis.v1.Image", ".visavis.v1.RawImage", ".visavis.v1.AnnotatedImage"])
        // The contract gains fields.
        .type_attribute(".visavis.v1", "#[non_exhaustive]")
        .compile_protos(
            &[
                "visavis/v1/vision.proto",
                "google/rpc/code.proto",
                "google/rpc/error_details.proto",
                "google/rpc/status.proto",
                "grpc/health/v1/health.proto",
            ],
            &protos,
        )
}

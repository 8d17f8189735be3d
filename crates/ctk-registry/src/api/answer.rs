//! Answers and failures, and the one place where errors of the storage become codes of the protocol.

use std::io;

use axum::body::Body;
use ctk_distribution::{Code, ErrorBody};
use http::header::{self, HeaderName};
use http::{HeaderValue, Response};
use serde::Serialize;

use crate::RegistryError;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    status: u16,
    detail: serde_json::Value,
    headers: Vec<(HeaderName, String)>,
}

impl Failure {
    pub(crate) fn of(code: Code) -> Failure {
        Failure { code, status: code.status(), detail: serde_json::Value::Null, headers: Vec::new() }
    }

    pub(crate) fn status(self, status: u16) -> Failure {
        Failure { status, ..self }
    }

    pub(crate) fn detail(self, detail: impl Into<serde_json::Value>) -> Failure {
        Failure { detail: detail.into(), ..self }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Failure {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &ErrorBody::of(self.code, self.detail));
        for (name, value) in self.headers {
            set(&mut response, name, &value);
        }
        response
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        let text = error.to_string();
        match error {
            RegistryError::Name(_) => Failure::of(Code::NameInvalid).detail(text),
            RegistryError::Mismatch { .. } => Failure::of(Code::DigestInvalid).detail(text),
            RegistryError::Manifest { unknown: Some(digest), .. } => {
                Failure::of(Code::ManifestBlobUnknown).detail(serde_json::json!({ "digest": digest }))
            }
            RegistryError::Manifest { .. } => Failure::of(Code::ManifestInvalid).detail(text),
            RegistryError::UploadsLimit { .. } => {
                Failure::of(Code::TooManyRequests).detail(text).with(header::RETRY_AFTER, "10")
            }
            RegistryError::Refused { .. } => Failure::of(Code::Denied).detail(text),
            RegistryError::Quota { .. } => Failure::of(Code::Denied).detail(text),
            RegistryError::UploadBusy => Failure::of(Code::TooManyRequests).detail(text).with(header::RETRY_AFTER, "1"),
            RegistryError::UploadUnknown => Failure::of(Code::BlobUploadUnknown),
            RegistryError::UploadOrder { .. } => Failure::of(Code::BlobUploadInvalid).status(416).detail(text),
            RegistryError::BlobLimit { .. } => Failure::of(Code::SizeInvalid).status(413).detail(text),
            // 507 is no reason to try again at once, as 500 would be.
            RegistryError::Storage { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => {
                Failure::of(Code::Unknown).status(507).detail("the registry's disk is full")
            }
            RegistryError::Metadata { full: true, .. } => {
                Failure::of(Code::Unknown).status(507).detail("the registry's disk is full")
            }
            // Paths of the server are nobody else's business.
            _ => Failure::of(Code::Unknown).detail("the registry's storage failed"),
        }
    }
}

pub(crate) fn empty(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a fixed status");
    set(&mut response, header::CONTENT_LENGTH, "0");
    if status == 204 {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

pub(crate) fn json(status: u16, value: &impl Serialize) -> Response<Body> {
    bytes(status, "application/json", serde_json::to_vec(value).expect("plain data serialises"))
}

pub(crate) fn bytes(status: u16, kind: &str, body: Vec<u8>) -> Response<Body> {
    let mut response = empty(status);
    set(&mut response, header::CONTENT_TYPE, kind);
    set(&mut response, header::CONTENT_LENGTH, &body.len().to_string());
    *response.body_mut() = Body::from(body);
    response
}

/// Sets a header; a value that HTTP does not allow is left out.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

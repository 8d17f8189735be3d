//! Why a test could not be run. That an assertion does not hold is no error: it is in the report.

use ctk_plan::Address;

use crate::decl::ImageName;

/// Why a test could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// An image of this project was not given to the test.
    #[error("`{image}`, which `{test}` needs, was not built")]
    NotBuilt {
        /// The test.
        test: Address,
        /// What is missing.
        image: Box<ImageName>,
    },
    /// The image could not be fetched.
    #[error("failed to fetch the image of service `{service}`")]
    Fetch {
        /// Which service.
        service: String,
        /// Why.
        #[source]
        source: Box<ctk_store::FetchError>,
    },
    /// The image's documents could not be read.
    #[error("cannot read image {image}")]
    ReadImage {
        /// Which.
        image: String,
        /// Why.
        #[source]
        source: Box<ctk_store::StoreError>,
    },
    /// The image's layers could not be unpacked or mounted.
    #[error("cannot unpack image {image}")]
    Unpack {
        /// Which.
        image: String,
        /// Why.
        #[source]
        source: Box<ctk_snapshot::SnapshotError>,
    },
    /// The image is not made for this platform.
    #[error("image {image} has nothing for {platform}")]
    NoPlatform {
        /// Which.
        image: String,
        /// For what.
        platform: Box<ctk_oci::Platform>,
    },
    /// The private network could not be made.
    #[error("cannot make a private network for the test's containers")]
    Network(#[source] ctk_container::Error),
    /// This machine cannot start containers as the test needs them.
    #[error("cannot start a container for {what}")]
    Start {
        /// For what.
        what: String,
        /// Why.
        #[source]
        source: ctk_container::Error,
    },
    /// A container that ran could not be asked or stopped.
    #[error("cannot control the container of {what}")]
    Control {
        /// Whose.
        what: String,
        /// Why.
        #[source]
        source: ctk_container::Error,
    },
    /// The kernel refused something small: a pipe, a thread.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

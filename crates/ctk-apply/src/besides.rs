//! What a build is asked for besides an image: to be built again and compared, a shell where it fails.

use std::fmt;
use std::sync::Arc;

use ctk_build::{Debugger, Difference};
use ctk_plan::Address;

use crate::{UnitFailure, codes};

/// What is done besides building.
#[derive(Clone, Default)]
pub struct Besides {
    /// Build once more without earlier results; that the two differ is a failure.
    pub verify: bool,
    /// Who gets a shell when a step fails.
    pub debugger: Option<Arc<dyn Debugger + Send>>,
}

impl Besides {
    pub(crate) fn debugger(&self) -> Option<&dyn Debugger> {
        self.debugger.as_ref().map(|debugger| debugger.as_ref() as &dyn Debugger)
    }
}

impl fmt::Debug for Besides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Besides").field("verify", &self.verify).field("debug", &self.debugger.is_some()).finish()
    }
}

/// The failure of an image that is not the same when it is built again.
pub(crate) fn verified(address: &Address, differences: &[Difference]) -> Result<(), UnitFailure> {
    if differences.is_empty() {
        return Ok(());
    }
    let code = codes::NOT_REPRODUCIBLE;
    let mut text = format!("error[{code}]: `{address}` is not the same when it is built again\n");
    for difference in differences {
        text += &format!("  first difference: {difference}\n");
    }
    Err(UnitFailure { address: address.clone(), code, text })
}

//! Again, and when.

use std::time::Duration;

use crate::{ClientError, RETRY_AFTER_LIMIT, Retry};

/// Counts the failures of one undertaking.
pub(crate) struct Patience {
    retry: Retry,
    failures: u32,
}

impl Patience {
    pub(crate) fn new(retry: Retry) -> Patience {
        Patience { retry, failures: 0 }
    }

    /// Something went forward: the count starts anew.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before another try, or gives the error back when there is no point.
    pub(crate) async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        let Some(asked) = error.transient() else { return Err(error) };
        self.failures += 1;
        if self.failures >= self.retry.attempts || asked.is_some_and(|a| a > RETRY_AFTER_LIMIT) {
            return Err(error);
        }
        tokio::time::sleep(asked.unwrap_or_else(|| self.delay())).await;
        Ok(())
    }

    fn delay(&self) -> Duration {
        let doubled = self.retry.first_delay.saturating_mul(1 << (self.failures - 1).min(16));
        doubled.min(self.retry.longest_delay)
    }
}

/// Runs `attempt` until it succeeds or patience ends.
pub(crate) async fn patiently<T>(
    retry: Retry,
    mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut patience = Patience::new(retry);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => patience.wait(error).await?,
        }
    }
}

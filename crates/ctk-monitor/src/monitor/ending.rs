//! How a container ends: what is written down, whether it is started again, who is told.

use std::time::{Duration, Instant};

use super::clients::Waits;
use super::{Monitor, OUT_OF_TIME};
use crate::config::{Network, RestartPolicy};
use crate::containers::Gone;
use crate::limits::RESTART_PAUSE_MAX;
use crate::protocol::{Answer, EXIT, Exit, Until};
use crate::state::Status;
use crate::{Error, time};

/// What becomes of a container that has ended.
enum Next {
    Start(Duration),
    End,
}

impl Monitor<'_> {
    /// Takes note of an end, and decides what comes then.
    pub(super) fn ended(&mut self, code: i32, out_of_time: bool, ran: bool, failed: bool) -> Result<(), Error> {
        self.run = None;
        self.checks = None;
        let starved = || match self.config.runtime {
            Some(_) => crate::foreign::cgroups(&self.container).is_ok_and(|cgroups| cgroups.oom_kills() > 0),
            None => self.container.kept().is_ok_and(|kept| kept.record.cgroups.oom_kills() > 0),
        };
        self.state.oom_killed = code == 128 + libc::SIGKILL && starved();
        match &self.config.runtime {
            Some(runtime) if ran => crate::foreign::delete(runtime, &self.container),
            None if ran => {
                let _ = ctk_bundle::container::delete(&self.container.runtime_root(), self.container.id(), true);
            }
            _ => {}
        }
        if let Some(path) = &self.config.pid_file {
            let _ = std::fs::remove_file(path);
        }
        self.state.pid = 0;
        self.state.network = serde_json::Value::Null;
        self.state.finished = time::now();
        self.state.exit_code = if out_of_time { OUT_OF_TIME } else { code };
        self.state.log_lost_bytes = self.log.lost();
        if self.state.oom_killed {
            self.tell("oom", &[]);
        }
        self.tell("died", &[("exitCode", self.state.exit_code.to_string())]);
        match self.decide(failed) {
            Next::Start(pause) => {
                if matches!(self.config.network, Network::Joined(_)) {
                    self.networking.detach(&self.container, &self.config);
                }
                self.state.status = Status::Restarting;
                self.next = Some(Instant::now() + pause);
            }
            Next::End => {
                self.state.status = Status::Exited;
                self.next = None;
            }
        }
        // `end` writes it as well, when it is over.
        if self.next.is_some() { self.container.write_state(&self.state) } else { Ok(()) }
    }

    fn decide(&mut self, failed: bool) -> Next {
        if let Some(stopping) = self.stopping.take() {
            return if stopping.again { Next::Start(Duration::ZERO) } else { Next::End };
        }
        if self.state.stopped {
            return Next::End;
        }
        let restart = self.config.restart;
        let again = match restart.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure => failed && (restart.most == 0 || self.state.restarts < restart.most),
        };
        if !again {
            return Next::End;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(RESTART_PAUSE_MAX);
        Next::Start(pause)
    }

    /// The end for good: what it was is written down, or nothing is left of it; then everybody is told.
    pub(super) fn end(&mut self) {
        let exit = Exit {
            code: self.state.exit_code,
            out_of_memory: self.state.oom_killed,
            out_of_time: self.state.exit_code == OUT_OF_TIME,
        };
        self.state.monitor = 0;
        if self.state.status.is_alive() {
            self.state.status = Status::Exited;
        }
        let never_ran = self.state.started == 0;
        if self.state.finished == 0 {
            self.state.finished = time::now();
        }
        let is_removed = self.config.remove && self.locked.is_some();
        if !is_removed && (!never_ran || !self.state.error.is_empty()) {
            let _ = self.container.write_state(&self.state);
        }
        let _ = std::fs::remove_file(self.container.directory().join("control"));
        if self.locked.is_some() && matches!(self.config.network, Network::Joined(_)) {
            self.networking.let_go(&self.container, &self.config);
        }
        let mut gone = None;
        if self.config.remove
            && let Some(locked) = self.locked.take()
        {
            gone = Some(self.containers.put_away(locked));
            let _ = self.containers.remove_volumes(&self.config);
        }
        self.locked = None;
        for client in &mut self.clients {
            if client.attached.is_some() {
                client.send_json(EXIT, &exit);
            }
            match client.waits {
                Waits::Stop | Waits::Until(Until::Exited) => {
                    client.answer(&Answer { code: exit.code, ..Answer::default() });
                }
                Waits::Until(Until::Healthy) => client.refuse("it ended before it was healthy", 125),
                Waits::Again | Waits::Check | Waits::Start => client.refuse("it has ended", 125),
                Waits::Nothing => {}
            }
        }
        super::clients::finish(&mut self.clients);
        self.clients.clear();
        // Nobody waits for this: the disk takes its time with files, the kernel with devices.
        gone.into_iter().for_each(Gone::remove);
        self.networking.clean_up();
    }
}

//! Carries out the screen's action menu: sends confirmed actions to the helper, and returns each result
//! as a line for the footer.

use std::convert::Infallible;

use tokio::sync::{mpsc, watch};
use tracer_model::action::protect::{ConfiguredGuard, Protection};
use tracer_model::action::request::{ActionRequest, Operation};
use tracer_model::action::{Action, Intent};

use super::audit;
use super::helper::client::PrivilegedHelper;
use super::helper::protocol::{Command, Response};
use super::request::{DEFAULT_FOR_S, StopRequest, TargetSpec};
use super::target::Reach;

/// Rate of a throttle from the menu, bytes per second: the default of `filltop stop --rate`.
const RATE: u64 = 1 << 20;

/// The screen's end: sends actions and receives results.
pub(crate) struct ActionPort {
    /// Takes confirmed actions.
    pub actions: mpsc::Sender<ActionRequest>,
    /// The latest result, as a line for the footer.
    pub results: watch::Receiver<String>,
}

/// Forwards requests and responses between the screen and the helper.
pub(crate) struct ActionBridge {
    helper: PrivilegedHelper,
    responses: mpsc::UnboundedReceiver<Response>,
    requests: mpsc::Receiver<ActionRequest>,
    results: watch::Sender<String>,
    configured: Option<ConfiguredGuard>,
}

/// Starts the helper. Must be called before privileges are dropped. The patterns of the configuration
/// apply here, too.
///
/// # Errors
/// If the helper cannot be started.
pub(crate) fn open(
    configured: Option<ConfiguredGuard>,
) -> anyhow::Result<(ActionPort, ActionBridge)> {
    let (helper, responses) = PrivilegedHelper::start()?;
    let (actions, requests) = mpsc::channel(1);
    let (results, latest) = watch::channel(String::new());
    Ok((
        ActionPort { actions, results: latest },
        ActionBridge { helper, responses, requests, results, configured },
    ))
}

impl ActionBridge {
    /// Forwards requests and responses for as long as the screen runs.
    pub(crate) async fn run(mut self) -> Infallible {
        loop {
            tokio::select! {
                Some(request) = self.requests.recv() => {
                    if let Err(error) = self.helper.send(command(&request, self.configured.as_ref())) {
                        self.results.send_replace(format!("{error:#}"));
                    }
                }
                Some(response) = self.responses.recv() => {
                    let ends = "; undone when this screen is closed";
                    let ends = if response.suspended { ends } else { "" };
                    self.results.send_replace(format!("{}{ends}", response.message));
                }
                else => std::future::pending().await,
            }
        }
    }
}

fn command(request: &ActionRequest, configured: Option<&ConfiguredGuard>) -> Command {
    let ActionRequest { target, operation } = request;
    let step = match operation {
        Operation::Act(action) => *action,
        Operation::Resume => return Command::Resume(target.argument(*operation)),
    };
    let spec = match target.pid.filter(|_| step != Action::Unit) {
        Some(pid) => TargetSpec::Process { pid, start_time: target.start_time },
        None => TargetSpec::Word(target.argument(*operation)),
    };
    Command::Act {
        request: Box::new(StopRequest {
            spec,
            reach: Reach::ForkingParent,
            how: step,
            rate: Some(RATE),
            volume: target.volume.as_ref().map(Into::into),
            for_s: DEFAULT_FOR_S,
            file: None,
            intent: Intent::Asked,
            dry_run: false,
            ends_with_owner: true,
            who: audit::who(),
            reason: "confirmed on the screen".to_owned(),
            log: None,
        }),
        protection: Protection { avoid: Vec::new(), configured: configured.cloned() },
    }
}

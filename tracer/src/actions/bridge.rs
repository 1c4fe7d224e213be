//! Carries out the screen's action menu: sends confirmed actions to the helper, and returns each result
//! as a line for the footer.

use std::convert::Infallible;

use tokio::sync::{mpsc, watch};
use tracer_model::action::protect::{ConfiguredGuard, Protection};
use tracer_model::action::request::{ActionRequest, Operation};
use tracer_model::action::{Action, Intent};

use super::audit;
use super::engine::{DEFAULT_FOR_S, Request, Spec};
use super::helper::{Answer, Hands, What};
use super::target::Reach;

/// Rate of a throttle from the menu, bytes per second: the default of `filltop stop --rate`.
const RATE: u64 = 1 << 20;

/// The screen's end: sends actions and receives results.
pub struct Desk {
    /// Takes confirmed actions.
    pub actions: mpsc::Sender<ActionRequest>,
    /// The latest result, as a line for the footer.
    pub results: watch::Receiver<String>,
}

/// Forwards requests and responses between the screen and the helper.
pub struct Clerk {
    hands: Hands,
    answers: mpsc::UnboundedReceiver<Answer>,
    asked: mpsc::Receiver<ActionRequest>,
    results: watch::Sender<String>,
    configured: Option<ConfiguredGuard>,
}

/// Starts the helper. Must be called before privileges are dropped. The patterns of the configuration
/// apply here, too.
///
/// # Errors
/// If the helper cannot be started.
pub fn open(configured: Option<ConfiguredGuard>) -> anyhow::Result<(Desk, Clerk)> {
    let (hands, answers) = Hands::start()?;
    let (actions, asked) = mpsc::channel(1);
    let (results, said) = watch::channel(String::new());
    Ok((Desk { actions, results: said }, Clerk { hands, answers, asked, results, configured }))
}

impl Clerk {
    /// Forwards requests and responses for as long as the screen runs.
    pub async fn work(mut self) -> Infallible {
        loop {
            tokio::select! {
                Some(request) = self.asked.recv() => {
                    if let Err(error) = self.hands.ask(what(&request, self.configured.as_ref())) {
                        self.results.send_replace(format!("{error:#}"));
                    }
                }
                Some(answer) = self.answers.recv() => {
                    let ends = "; undone when this screen is closed";
                    let ends = if answer.suspended { ends } else { "" };
                    self.results.send_replace(format!("{}{ends}", answer.said));
                }
                else => std::future::pending().await,
            }
        }
    }
}

fn what(request: &ActionRequest, configured: Option<&ConfiguredGuard>) -> What {
    let ActionRequest { target, operation } = request;
    let step = match operation {
        Operation::Act(action) => *action,
        Operation::Resume => return What::Resume(target.argument(*operation)),
    };
    let spec = match target.pid.filter(|_| step != Action::Unit) {
        Some(pid) => Spec::Process { pid, start_time: target.start_time },
        None => Spec::Word(target.argument(*operation)),
    };
    What::Act {
        request: Box::new(Request {
            spec,
            reach: Reach::Forker,
            how: step,
            rate: Some(RATE),
            volume: target.volume.as_ref().map(Into::into),
            for_s: DEFAULT_FOR_S,
            file: None,
            intent: Intent::Asked,
            dry_run: false,
            lifeline: true,
            who: audit::who(),
            reason: "confirmed on the screen".to_owned(),
            log: None,
        }),
        protection: Protection { avoid: Vec::new(), configured: configured.cloned() },
    }
}

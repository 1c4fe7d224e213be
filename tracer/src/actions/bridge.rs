//! The screen's menu, carried out: what was confirmed goes to the hands, what became of it comes back
//! as a line for the footer.

use std::convert::Infallible;

use tokio::sync::{mpsc, watch};
use tracer_model::action::protect::{Configured, Protection};
use tracer_model::action::request::{ActionRequest, Operation};
use tracer_model::action::{Action, Intent};

use super::audit;
use super::engine::{DEFAULT_FOR_S, Request, Spec};
use super::helper::{Answer, Hands, What};
use super::target::Reach;

/// Rate of a throttle from the menu, bytes per second: that of `filltop stop` without --rate.
const RATE: u64 = 1 << 20;

/// What the screen gets.
pub struct Desk {
    /// Where it sends what was confirmed.
    pub actions: mpsc::Sender<ActionRequest>,
    /// Where the results come.
    pub results: watch::Receiver<String>,
}

/// Who works between the screen and the hands.
pub struct Clerk {
    hands: Hands,
    answers: mpsc::UnboundedReceiver<Answer>,
    asked: mpsc::Receiver<ActionRequest>,
    results: watch::Sender<String>,
    configured: Option<Configured>,
}

/// Starts the hands. To be called before privileges are given up. What the configuration says of whom
/// to touch holds here, too.
///
/// # Errors
/// If they cannot be started.
pub fn open(configured: Option<Configured>) -> anyhow::Result<(Desk, Clerk)> {
    let (hands, answers) = Hands::start()?;
    let (actions, asked) = mpsc::channel(1);
    let (results, said) = watch::channel(String::new());
    Ok((Desk { actions, results: said }, Clerk { hands, answers, asked, results, configured }))
}

impl Clerk {
    /// Passes on, for as long as the screen is there.
    pub async fn work(mut self) -> Infallible {
        loop {
            tokio::select! {
                Some(request) = self.asked.recv() => {
                    if let Err(error) = self.hands.ask(what(&request, self.configured.as_ref())) {
                        self.results.send_replace(format!("{error:#}"));
                    }
                }
                Some(answer) = self.answers.recv() => {
                    let ends = "; it goes on when this screen is closed";
                    let ends = if answer.suspended { ends } else { "" };
                    self.results.send_replace(format!("{}{ends}", answer.said));
                }
                else => std::future::pending().await,
            }
        }
    }
}

fn what(request: &ActionRequest, configured: Option<&Configured>) -> What {
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

//! A webhook: the event as JSON, or as what a chat or pager wants.

use tracer_model::alert::Event;

use super::http::{Client, Endpoint};
use super::{Deliver, Failure, fields, templates};

/// What is posted.
#[derive(Clone, PartialEq, Eq)]
pub enum Template {
    /// The event as `watch --json` prints it.
    Json,
    /// Slack's incoming webhooks; Mattermost and Rocket.Chat take them, too.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty {
        /// Of the integration.
        routing_key: String,
    },
    /// ntfy's JSON publishing.
    Ntfy {
        /// Where it is published.
        topic: String,
    },
    /// A text with `{name}`s in it, each replaced by its value, escaped for JSON.
    Custom(String),
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest may be a secret.
        f.write_str(match self {
            Self::Json => "json",
            Self::Slack => "slack",
            Self::Pagerduty { .. } => "pagerduty",
            Self::Ntfy { .. } => "ntfy",
            Self::Custom(_) => "custom",
        })
    }
}

/// Where to, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// Where.
    pub endpoint: Endpoint,
    /// What.
    pub template: Template,
}

pub(super) struct Webhook {
    client: Client,
    template: Template,
}

impl Webhook {
    pub(super) fn new(target: &WebhookTarget) -> Self {
        Self { client: Client::new(&target.endpoint), template: target.template.clone() }
    }
}

impl Deliver for Webhook {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        let body = match &self.template {
            Template::Json => fields::json(event),
            Template::Slack => templates::slack(event),
            Template::Pagerduty { routing_key } => templates::pagerduty(event, routing_key),
            Template::Ntfy { topic } => templates::ntfy(event, topic),
            Template::Custom(text) => templates::custom(event, text),
        };
        self.client.post("", &event.id, &body)
    }
}

//! The webhook sink: posts the event as JSON, or in the format of a chat or pager service.

use tracer_model::alert::Event;

use super::http::{Client, Endpoint};
use super::{Deliver, Failure, fields, templates};

/// The format of the posted body.
#[derive(Clone, PartialEq, Eq)]
pub enum Template {
    /// The event as `watch --json` prints it.
    Json,
    /// Slack's incoming webhooks; also accepted by Mattermost and Rocket.Chat.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty {
        /// Routing key of the integration.
        routing_key: String,
    },
    /// ntfy's JSON publishing.
    Ntfy {
        /// Topic to publish to.
        topic: String,
    },
    /// A text in which each `{name}` is replaced with its value, escaped for JSON.
    Custom(String),
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Only the variant: the contents may be secret.
        f.write_str(match self {
            Self::Json => "json",
            Self::Slack => "slack",
            Self::Pagerduty { .. } => "pagerduty",
            Self::Ntfy { .. } => "ntfy",
            Self::Custom(_) => "custom",
        })
    }
}

/// Destination and format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// The destination.
    pub endpoint: Endpoint,
    /// The format of the body.
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

//! The webhook sink: posts the event as JSON, or in the format of a chat or pager service.

use tracer_model::alert::Event;

use super::http::Client;
use super::{Deliver, Failure, fields, templates};
use crate::config::{Template, WebhookTarget};

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

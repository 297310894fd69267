//! The second proof value of the line, and the other questions that sessions ask.

use std::sync::Arc;

use super::Policy;
use super::decide::{Operation, Subject, Verdict};
use super::receipts::is_receipts;
use super::rule::{
    ClockRule, EvidenceRule, Manner, PayloadRule, ReceiptRule, Rule, RuleId, V3Refusal,
};
use crate::mqtt::{QoS, TopicFilter, TopicName};
use crate::refusal::{Refusal, Refused};
use crate::session::{Author, Received};

/// A message that a rule permits its author to publish. Made only by [`Policy::authorize`].
#[derive(Clone, Debug)]
pub struct Authorized {
    received: Received,
    rule: Arc<Rule>,
}

impl Authorized {
    /// The message.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// The rule that permits it.
    pub fn rule(&self) -> &RuleId {
        &self.rule.id
    }

    /// What the rule asks of the payload.
    pub fn payload_rule(&self) -> PayloadRule {
        self.rule.payload
    }

    /// The level of evidence that the rule asks for.
    pub fn evidence_rule(&self) -> EvidenceRule {
        self.rule.evidence
    }

    /// What the rule says of devices that have another time.
    pub fn clock_rule(&self) -> ClockRule {
        self.rule.clock
    }

    /// What a 3.x client sees if a later room refuses the message.
    pub fn v3_refusal(&self) -> V3Refusal {
        self.rule.v3_refusal
    }

    /// What its author is given besides an acknowledgement.
    pub fn receipt_rule(&self) -> ReceiptRule {
        self.rule.receipt
    }

    /// Gives the message back, for an entry about a later refusal.
    pub fn into_received(self) -> Received {
        self.received
    }
}

/// A permission to subscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribePermit {
    /// The rule that permits it.
    pub rule: RuleId,
    /// The highest QoS that it may be granted.
    pub qos_max: QoS,
}

impl Policy {
    /// Decides whether the author of `received` may publish it; also asked of a Will, at CONNECT
    /// and again at its publication.
    ///
    /// # Errors
    /// The message, and why it is refused.
    pub fn authorize(&self, received: Received) -> Result<Authorized, (Received, Refused)> {
        // The broker alone writes `$` topics, whatever the rules say.
        if received.topic().is_dollar() {
            return Err((received, Refusal::ReservedTopic.into()));
        }
        let publish = received.publish();
        let manner = Manner {
            qos: publish.qos,
            retain: publish.retain,
            clear: publish.retain && publish.payload.is_empty(),
        };
        let subject = subject(received.author());
        let topic = received.topic().as_str();
        let verdict = self.index.judge(&subject, Operation::Publish, topic, manner);
        match verdict.permitted().cloned() {
            Ok(rule) => Ok(Authorized { received, rule }),
            Err(refused) => Err((received, refused)),
        }
    }

    /// What a 3.x client sees when a PUBLISH to `topic` is refused without an [`Authorized`]: what
    /// the rule says that forbids the topic or permits it in another manner, else the default.
    pub fn v3_refusal_for(&self, author: &Author, topic: &TopicName) -> V3Refusal {
        let (subject, manner) = (subject(author), Manner::default());
        match self.index.judge(&subject, Operation::Publish, topic.as_str(), manner) {
            Verdict::Forbidden(rule) | Verdict::Permitted(rule) | Verdict::Short(rule, _) => {
                rule.v3_refusal
            }
            Verdict::NoRule => self.v3_refusal,
        }
    }

    /// Whether a message of `author` to `topic` is to come with its device's statement: asked before
    /// the message is authorized, of clients that can send it only around the payload.
    pub fn asks_for_statement(&self, author: &Author, topic: &TopicName) -> bool {
        if !self.index.asks_for_statements() {
            return false;
        }
        let (subject, manner) = (subject(author), Manner::default());
        match self.index.judge(&subject, Operation::Publish, topic.as_str(), manner) {
            Verdict::Permitted(rule) => rule.evidence == EvidenceRule::Signed,
            Verdict::Forbidden(_) | Verdict::Short(..) | Verdict::NoRule => false,
        }
    }

    /// Decides whether `author` may hold a subscription to `filter`, shared or not.
    ///
    /// # Errors
    /// Why not.
    pub fn may_subscribe(
        &self,
        author: &Author,
        filter: &TopicFilter,
    ) -> Result<SubscribePermit, Refused> {
        // A promise to one cannot be shared out.
        if filter.share().is_some() && is_receipts(filter.as_str()) {
            return Err(Refusal::NoRule.into());
        }
        self.index
            .judge(&subject(author), Operation::Subscribe, filter.as_str(), Manner::default())
            .permitted()
            .map(|rule| SubscribePermit { rule: rule.id.clone(), qos_max: rule.qos_max })
    }

    /// Decides whether a message of `topic` may be sent to `author`: asked at every delivery, of
    /// live, queued and retained messages alike. Allocates nothing when it permits.
    ///
    /// # Errors
    /// Why not.
    pub fn may_receive(&self, author: &Author, topic: &TopicName) -> Result<&RuleId, Refused> {
        self.index
            .judge(&subject(author), Operation::Receive, topic.as_str(), Manner::default())
            .permitted()
            .map(|rule| &rule.id)
    }

    /// Decides whether `author` may use its Client Identifier. An empty one is asked about after the
    /// broker has assigned another.
    ///
    /// # Errors
    /// Always [`Refusal::ClientIdNotPermitted`], with the forbid rule if there is one.
    pub fn may_use_client_id(&self, author: &Author) -> Result<&RuleId, Refused> {
        match self.index.judge_client_id(&subject(author)).permitted() {
            Ok(rule) => Ok(&rule.id),
            Err(refused) => Err(Refused { refusal: Refusal::ClientIdNotPermitted, ..refused }),
        }
    }
}

fn subject(author: &Author) -> Subject<'_> {
    Subject {
        identity: author.identity(),
        client_id: author.client_id().as_str(),
        grants: author.grants(),
    }
}

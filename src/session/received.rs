//! The first proof value of the line: a PUBLISH whose author and topic are known.

use std::sync::Arc;

use crate::identity::Identity;
use crate::mqtt::{ClientId, ProtocolVersion, Publish, TopicName};

/// Who sends: an identity under one of its Client Identifiers. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(Arc<AuthorInner>);

#[derive(Debug, PartialEq, Eq)]
struct AuthorInner {
    identity: Identity,
    client_id: ClientId,
    version: ProtocolVersion,
}

impl Author {
    /// The author behind one session.
    pub fn new(identity: Identity, client_id: ClientId, version: ProtocolVersion) -> Self {
        Self(Arc::new(AuthorInner { identity, client_id, version }))
    }

    /// The identity of the certificate.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The Client Identifier of the session.
    pub fn client_id(&self) -> &ClientId {
        &self.0.client_id
    }

    /// The protocol version of the connection.
    pub fn version(&self) -> ProtocolVersion {
        self.0.version
    }
}

/// An Application Message as its author sent it, its Topic Alias resolved: the topic in here is
/// the topic that is checked, recorded and routed. Made only by this room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    author: Author,
    topic: TopicName,
    publish: Box<Publish>,
}

impl Received {
    /// Binds `publish`, whose topic (or whose alias) is `topic`, to its author.
    pub(crate) fn new(author: Author, topic: TopicName, publish: Box<Publish>) -> Self {
        Self { author, topic, publish }
    }

    /// Who sent it.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// Its topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The rest of the packet. Its own `topic` may be absent; [`Received::topic`] never is.
    pub fn publish(&self) -> &Publish {
        &self.publish
    }
}

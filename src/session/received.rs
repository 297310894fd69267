//! The first proof value of the line: a PUBLISH whose author and topic are known.

use std::sync::Arc;

use bytes::Bytes;

use crate::identity::{Grants, Identity};
use crate::mqtt::{ClientId, ProtocolVersion, Publish, TopicName};

/// Who sends: an identity under one of its Client Identifiers. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(Arc<AuthorInner>);

#[derive(Debug, PartialEq, Eq)]
struct AuthorInner {
    identity: Identity,
    client_id: ClientId,
    version: ProtocolVersion,
    grants: Option<Arc<Grants>>,
}

impl Author {
    /// The author behind one session.
    pub fn new(identity: Identity, client_id: ClientId, version: ProtocolVersion) -> Self {
        Self(Arc::new(AuthorInner { identity, client_id, version, grants: None }))
    }

    /// The same author, who holds `grants` in place of what it held before.
    pub fn with_grants(&self, grants: Option<Arc<Grants>>) -> Self {
        let AuthorInner { identity, client_id, version, .. } = &*self.0;
        let (identity, client_id) = (identity.clone(), client_id.clone());
        Self(Arc::new(AuthorInner { identity, client_id, version: *version, grants }))
    }

    /// The identity of the certificate or of the token.
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

    /// What its credential grants besides the name: nothing, if that is a certificate.
    pub fn grants(&self) -> &Grants {
        self.0.grants.as_deref().unwrap_or(Grants::NONE)
    }
}

/// An Application Message as its author sent it, its Topic Alias resolved: the topic in here is
/// the topic that is checked, recorded and routed. Made only by this room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    author: Author,
    topic: TopicName,
    publish: Box<Publish>,
    embedding: Option<Bytes>,
}

impl Received {
    /// Binds `publish`, whose topic (or whose alias) is `topic`, to its author.
    pub(crate) fn new(author: Author, topic: TopicName, publish: Box<Publish>) -> Self {
        Self { author, topic, publish, embedding: None }
    }

    /// The same, where what the client sent as its payload was an `object` with the payload of
    /// `publish` in it.
    pub(crate) fn taken_out_of(self, object: Bytes) -> Self {
        Self { embedding: Some(object), ..self }
    }

    /// Who sent it.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// Its topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The object that the payload was taken out of.
    pub fn embedding(&self) -> Option<&Bytes> {
        self.embedding.as_ref()
    }

    /// The rest of the packet. Its own `topic` may be absent; [`Received::topic`] never is.
    pub fn publish(&self) -> &Publish {
        &self.publish
    }
}

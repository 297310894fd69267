//! The certificates that vouched for a client: what a certification path was, for whoever must
//! judge it again.
//!
//! A path builder says that there is a path and not which; this walks it again by names, from the
//! end entity to the anchor, among the certificates that the client sent. It decides nothing about
//! trust. Invariant: a [`CertificationPath`] begins with the certificate that was judged and ends
//! with the anchor that vouched for it. RFC 5280 section 6.1 (subject and issuer names chain).

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::certificate::parse;

/// End entity, what stands between, and the anchor, each as DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificationPath {
    end_entity: Box<[u8]>,
    intermediates: Vec<Box<[u8]>>,
    anchor: Arc<[u8]>,
}

impl CertificationPath {
    /// The path from `end_entity` to `anchor` among `sent`; all of `sent`, where names alone do not
    /// lead there.
    pub(super) fn walk(
        end_entity: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        anchor: &Arc<[u8]>,
    ) -> Self {
        let intermediates =
            chained(end_entity, sent, anchor).unwrap_or_else(|| sent.iter().collect());
        Self {
            end_entity: Box::from(end_entity.as_ref()),
            intermediates: intermediates.into_iter().map(|der| Box::from(der.as_ref())).collect(),
            anchor: Arc::clone(anchor),
        }
    }

    /// A path as it is, for whoever read it elsewhere.
    pub fn of(end_entity: &[u8], intermediates: &[&[u8]], anchor: &[u8]) -> Self {
        Self {
            end_entity: end_entity.into(),
            intermediates: intermediates.iter().map(|der| Box::from(*der)).collect(),
            anchor: anchor.into(),
        }
    }

    /// The client's own certificate.
    pub fn end_entity(&self) -> &[u8] {
        &self.end_entity
    }

    /// The certificates of CAs that the client sent and that lead to the anchor; nearest first.
    pub fn intermediates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.intermediates.iter().map(AsRef::as_ref)
    }

    /// The trust anchor.
    pub fn anchor(&self) -> &[u8] {
        &self.anchor
    }
}

/// Those of `sent` that lead from `end_entity` to `anchor`, each at most once.
fn chained<'c, 'd>(
    end_entity: &CertificateDer<'_>,
    sent: &'c [CertificateDer<'d>],
    anchor: &[u8],
) -> Option<Vec<&'c CertificateDer<'d>>> {
    let names = |der: &CertificateDer<'_>| {
        let parsed = parse(der).ok()?;
        Some((parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()))
    };
    let (anchor_subject, _) = names(&CertificateDer::from(anchor))?;
    let (_, mut wanted) = names(end_entity)?;
    let mut rest: Vec<_> = sent.iter().filter_map(|der| Some((der, names(der)?))).collect();
    let mut path = Vec::new();
    while wanted != anchor_subject {
        let at = rest.iter().position(|(_, (subject, _))| *subject == wanted)?;
        let (der, (_, issuer)) = rest.swap_remove(at);
        path.push(der);
        wanted = issuer;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{NOW, Plant, ders};
    use crate::identity::{Role, identify};

    #[test]
    fn what_leads_to_the_anchor_is_kept_and_what_does_not_is_not() {
        let (plant, other) = (Plant::new("a"), Plant::new("b"));
        let mut sent = ders(&plant.client(Role::Device, "press-7"));
        let [end_entity, issuing] = [sent[0].clone(), sent[1].clone()];
        sent.insert(1, ders(&other.issuing)[0].clone());
        let facts = identify(&sent, &plant.issuers(), NOW).unwrap();
        let path = facts.path();
        assert_eq!(path.end_entity(), end_entity.as_ref());
        assert_eq!(path.intermediates().collect::<Vec<_>>(), [issuing.as_ref()]);
        assert_eq!(path.anchor(), ders(&plant.root)[0].as_ref());
    }

    #[test]
    fn names_that_lead_nowhere_leave_all_that_was_sent() {
        let (plant, other) = (Plant::new("a"), Plant::new("b"));
        let sent = ders(&plant.client(Role::Device, "press-7"));
        let anchor = Arc::from(ders(&other.root)[0].as_ref());
        let path = CertificationPath::walk(&sent[0], &sent[1..], &anchor);
        assert_eq!(path.intermediates().len(), 1);
        // Two that name each other do not hold it up.
        let twice = [sent[1].clone(), sent[1].clone(), sent[0].clone()];
        assert_eq!(CertificationPath::walk(&sent[0], &twice, &anchor).intermediates().len(), 3);
    }
}

//! Reads a tree that may be larger than one answer, in portions: first as a whole, then folder by folder.
//!
//! What one host or operator fills up is named and left out, and keeps nobody from reading the rest.

use std::future::Future;
use std::pin::Pin;

use super::{Entry, Listing, MAX_READS, Read, Store, StoreError};

/// The most keys directly in one folder that are read one by one. A host must be able to read its own reports again:
/// `store/budget.rs` lets it hold 18,000 orders, one report each.
const MAX_KEYS: usize = 20_000;

/// Prefixes and keys that hold too much to be read, each with the reason.
pub type Unread = Vec<(String, String)>;

/// Gives each key below `prefix` to `take`, in no order; only a portion is in memory at a time. Only a store that refuses
/// or gives no answer is an error.
pub async fn read(
    store: &dyn Store,
    prefix: &str,
    mut take: impl FnMut(Entry) + Send,
) -> Result<Unread, StoreError> {
    let mut tree = Tree { take: &mut take, unread: Unread::new() };
    below(store, prefix.to_owned(), &mut tree).await?;
    Ok(tree.unread)
}

struct Tree<'t> {
    take: &'t mut (dyn FnMut(Entry) + Send),
    unread: Unread,
}

impl Tree<'_> {
    fn take(&mut self, found: impl IntoIterator<Item = Listing>) {
        found.into_iter().flat_map(|listing| listing.entries).for_each(&mut *self.take);
    }
}

/// What a question brought, unless it was too much.
fn unless_too_large<T>(
    answer: Result<T, StoreError>,
    prefix: &str,
    tree: &mut Tree<'_>,
) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error @ StoreError::TooLarge { .. }) => {
            tree.unread.push((prefix.to_owned(), error.to_string()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn below<'a, 't: 'a>(
    store: &'a dyn Store,
    prefix: String,
    tree: &'a mut Tree<'t>,
) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>> {
    Box::pin(async move {
        match store.list(&prefix).await {
            Ok(listing) => {
                tree.take([listing]);
                return Ok(());
            }
            Err(StoreError::TooLarge { .. }) => {}
            Err(error) => return Err(error),
        }
        let names = store.names(&prefix).await;
        let Some(names) = unless_too_large(names, &prefix, tree)? else { return Ok(()) };
        let (folders, keys): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with('/'));
        if keys.len() > MAX_KEYS {
            tree.unread.push((prefix, format!("{} keys are too many to be read", keys.len())));
            return Ok(());
        }
        for folder in folders {
            below(store, format!("{prefix}{folder}"), tree).await?;
        }
        for keys in keys.chunks(MAX_READS) {
            let reads: Vec<Read> = keys.iter().map(|key| Read::Key(format!("{prefix}{key}"))).collect();
            match store.look(&reads).await {
                Ok(found) => tree.take(found),
                // Together they are too much, or one of them is.
                Err(StoreError::TooLarge { .. }) => one_by_one(store, reads, tree).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

async fn one_by_one(store: &dyn Store, reads: Vec<Read>, tree: &mut Tree<'_>) -> Result<(), StoreError> {
    for read in reads {
        let (Read::Key(key) | Read::Prefix(key)) = &read;
        let found = store.look(std::slice::from_ref(&read)).await;
        if let Some(found) = unless_too_large(found, key, tree)? {
            tree.take(found);
        }
    }
    Ok(())
}

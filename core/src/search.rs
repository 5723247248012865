//! The search for somebody who answers, for a caller who is told meanwhile that it goes on.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use crate::{
    answer::Reply,
    budget::Budget,
    dispatch::Target,
    platform::Tasks,
    pursuit::{Loss, Pursuit},
};

/// A search under way; or none.
#[derive(Default)]
pub(crate) struct Search {
    work: Option<Pin<Box<dyn Future<Output = Searched>>>>,
    /// Where it goes on without its caller, where it does.
    tasks: Option<Rc<dyn Tasks>>,
    /// Set once he has left.
    is_left: Rc<Cell<bool>>,
    /// Whether whoever is being asked is heard on without him.
    is_heard_on: Rc<Cell<bool>>,
}

/// What came of it.
pub(crate) struct Searched {
    pub(crate) pursuit: Box<Pursuit>,
    pub(crate) budget: Budget,
    /// Who has something for the caller, and what.
    pub(crate) found: Result<(Reply, Target), Loss>,
}

/// Begins the search of `pursuit`.
pub(crate) fn search(mut pursuit: Box<Pursuit>, mut budget: Budget) -> Search {
    let (tasks, is_left) = (pursuit.tasks(), pursuit.is_left.clone());
    let is_heard_on = pursuit.is_heard_on.clone();
    let work = Box::pin(async move {
        let found = pursuit.answer(&mut budget).await;
        Searched {
            pursuit,
            budget,
            found,
        }
    });
    Search {
        work: Some(work),
        tasks: Some(tasks),
        is_left,
        is_heard_on,
    }
}

impl Search {
    /// Its caller has left: where it goes on, if it does. Nobody else is asked then.
    pub(crate) fn leave(&self) -> Option<Rc<dyn Tasks>> {
        self.work.as_ref()?;
        self.is_left.set(true);
        self.tasks.clone().filter(|_| self.is_heard_on.get())
    }
}

impl Future for Search {
    type Output = Searched;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Searched> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let searched = ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(searched)
    }
}

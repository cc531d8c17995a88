//! Scheduling: the owner's and the executor's books, one decision at a time.

mod desk;
mod executor;
mod explain;
mod fates;
mod fleet;
mod late;
mod owner;
mod pools;

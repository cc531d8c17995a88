//! The edge: the port that every node listens on for workers and their clients.

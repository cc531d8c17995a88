//! An environment server: the classic cart-pole over TCP, for any number of clients at once.
//!
//! Starling gives it STARLING_PORT_FILE, where it writes its port; without that it prints `PORT=n` first. It serves until SIGTERM.
//! One request and one answer a line:
//!
//! ```text
//! RESET [seed]   OBS x x_dot theta theta_dot
//! STEP 0|1       OBS x x_dot theta theta_dot REWARD r DONE 0|1      (0 pushes to the left, 1 to the right)
//! QUIT
//! ```
//!
//! Invariants: an episode is decided by its seed and the steps taken.

#![expect(clippy::print_stdout, reason = "an example is a program of its own")]

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, fs, thread};

const STEPS_MAX: u32 = 500;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    match env::var_os("STARLING_PORT_FILE") {
        Some(file) => fs::write(file, format!("{port}\n"))?,
        None => println!("PORT={port}"),
    }
    for (number, client) in listener.incoming().enumerate() {
        let client = client?;
        thread::spawn(move || match serve(client) {
            Ok(episodes) => println!("client {number}: {episodes} episodes"),
            Err(error) => println!("client {number}: {error}"),
        });
    }
    Ok(())
}

/// Answers one client until it leaves; returns how many episodes it began.
fn serve(client: TcpStream) -> io::Result<u64> {
    client.set_nodelay(true)?;
    let mut answers = client.try_clone()?;
    let (mut cart, mut episodes) = (None, 0);
    for line in BufReader::new(client).lines() {
        let line = line?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let answer = match (words.as_slice(), &mut cart) {
            (["RESET"], _) => reset(&mut cart, &mut episodes, None),
            (["RESET", seed], _) => match seed.parse() {
                Ok(seed) => reset(&mut cart, &mut episodes, Some(seed)),
                Err(_) => "ERROR a seed is a whole number".to_owned(),
            },
            (["STEP", action @ ("0" | "1")], Some(cart)) if !cart.is_done() => {
                cart.step(if *action == "1" { 1.0 } else { -1.0 });
                format!("{cart} REWARD 1 DONE {}", u8::from(cart.is_done()))
            }
            (["STEP", "0" | "1"], _) => "ERROR no episode runs: RESET first".to_owned(),
            (["QUIT"], _) => break,
            _ => "ERROR expected RESET [seed], STEP 0|1 or QUIT".to_owned(),
        };
        answers.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(episodes)
}

/// Begins an episode. Without a seed its number is the seed.
fn reset(cart: &mut Option<CartPole>, episodes: &mut u64, seed: Option<u64>) -> String {
    *episodes += 1;
    cart.insert(CartPole::new(seed.unwrap_or(*episodes))).to_string()
}

/// A pole on a cart that is pushed (Barto, Sutton and Anderson 1983), in metres, radians and seconds.
struct CartPole {
    x: f64,
    x_dot: f64,
    theta: f64,
    theta_dot: f64,
    steps: u32,
}

impl CartPole {
    /// Almost at rest, almost upright.
    fn new(mut seed: u64) -> Self {
        let mut small = || (random(&mut seed) - 0.5) * 0.1;
        Self { x: small(), x_dot: small(), theta: small(), theta_dot: small(), steps: 0 }
    }

    /// One Euler step of 20 ms under a push of 10 N, to the right if `direction` is 1.
    fn step(&mut self, direction: f64) {
        const GRAVITY: f64 = 9.8;
        const POLE_MASS: f64 = 0.1;
        const MASS: f64 = 1.0 + POLE_MASS;
        const HALF_LENGTH: f64 = 0.5;
        const PUSH: f64 = 10.0;
        const TICK: f64 = 0.02;
        let (sin, cos) = self.theta.sin_cos();
        let pull = (PUSH * direction + POLE_MASS * HALF_LENGTH * self.theta_dot.powi(2) * sin) / MASS;
        let theta_acc = (GRAVITY * sin - cos * pull) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cos * cos / MASS));
        let x_acc = pull - POLE_MASS * HALF_LENGTH * theta_acc * cos / MASS;
        self.x += TICK * self.x_dot;
        self.x_dot += TICK * x_acc;
        self.theta += TICK * self.theta_dot;
        self.theta_dot += TICK * theta_acc;
        self.steps += 1;
    }

    fn is_done(&self) -> bool {
        self.x.abs() > 2.4 || self.theta.abs() > 12_f64.to_radians() || self.steps >= STEPS_MAX
    }
}

impl fmt::Display for CartPole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OBS {} {} {} {}", self.x, self.x_dot, self.theta, self.theta_dot)
    }
}

/// A number from 0 to 1 (SplitMix64).
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    // 53 bits: as many as a float holds exactly.
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

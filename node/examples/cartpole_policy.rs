//! A policy for `cartpole_env`: plays some episodes and says how well it did.
//!
//! `cartpole_policy [HOST:PORT] [--episodes N] [--seed N] [--at-least MEAN]`; Starling tells the address by STARLING_HOST and
//! STARLING_PORT. Exit code 0 if the mean return reached what was asked for, else 1; 2 if it could not play.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program of its own")]

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Asked::from_arguments().and_then(|asked| play(&asked)) {
        Ok(verdict) => verdict,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn play(asked: &Asked) -> Result<ExitCode, Box<dyn Error>> {
    let mut env = Env::connect(&asked.address)?;
    let mut total = 0.0;
    for seed in asked.seed..asked.seed + asked.episodes {
        let mut observed = env.reset(seed)?;
        let mut sum = 0.0;
        loop {
            let (next, reward, is_done) = env.step(act(observed))?;
            (observed, sum) = (next, sum + reward);
            if is_done {
                break;
            }
        }
        println!("episode {seed}: return {sum}");
        total += sum;
    }
    let mean = total / asked.episodes as f64;
    println!("mean return {mean:.1} over {} episodes, asked for {}", asked.episodes, asked.at_least);
    Ok(if mean >= asked.at_least { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Linear feedback: push to the right (1) where the pole falls to the right, and lean against drifting off.
fn act([x, x_dot, theta, theta_dot]: [f64; 4]) -> u8 {
    u8::from(0.1 * x + 0.2 * x_dot + 2.0 * theta + 0.5 * theta_dot > 0.0)
}

/// The environment, over its line protocol.
struct Env {
    answers: BufReader<TcpStream>,
    requests: TcpStream,
}

impl Env {
    fn connect(address: &str) -> Result<Self, Box<dyn Error>> {
        let requests = TcpStream::connect(address).map_err(|error| format!("no env at {address}: {error}"))?;
        requests.set_nodelay(true)?;
        Ok(Self { answers: BufReader::new(requests.try_clone()?), requests })
    }

    fn reset(&mut self, seed: u64) -> Result<[f64; 4], Box<dyn Error>> {
        let answer = self.ask(&format!("RESET {seed}"))?;
        observation(&answer.split(' ').collect::<Vec<_>>()).ok_or_else(|| answer.into())
    }

    /// What is observed next, the reward, and whether the episode is over.
    fn step(&mut self, action: u8) -> Result<([f64; 4], f64, bool), Box<dyn Error>> {
        let answer = self.ask(&format!("STEP {action}"))?;
        let words: Vec<_> = answer.split(' ').collect();
        match words.as_slice() {
            [observed @ .., "REWARD", reward, "DONE", done] => {
                let observed = observation(observed).ok_or_else(|| answer.clone())?;
                Ok((observed, reward.parse()?, *done == "1"))
            }
            _ => Err(answer.into()),
        }
    }

    fn ask(&mut self, request: &str) -> Result<String, Box<dyn Error>> {
        self.requests.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer)? {
            0 => Err("the env has gone".into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

fn observation(words: &[&str]) -> Option<[f64; 4]> {
    let ["OBS", numbers @ ..] = words else { return None };
    let numbers: Vec<f64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().ok()
}

struct Asked {
    address: String,
    episodes: u64,
    seed: u64,
    at_least: f64,
}

impl Asked {
    fn from_arguments() -> Result<Self, Box<dyn Error>> {
        let told = || Some(format!("{}:{}", env::var("STARLING_HOST").ok()?, env::var("STARLING_PORT").ok()?));
        let mut address = told();
        let (mut episodes, mut seed, mut at_least) = (5, 1, 195.0);
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--episodes" => episodes = value()?.parse()?,
                "--seed" => seed = value()?.parse()?,
                "--at-least" => at_least = value()?.parse()?,
                option if option.starts_with('-') => return Err(format!("no such option: {option}").into()),
                given => address = Some(given.to_owned()),
            }
        }
        let address = address.ok_or("where is the env? give HOST:PORT, or set STARLING_HOST and STARLING_PORT")?;
        Ok(Self { address, episodes, seed, at_least })
    }
}

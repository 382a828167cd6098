//! Recorded speech: read, sent as ordinary RTP by an ordinary tool or by ourselves, collected, and
//! compared sample by sample.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// The recording that comes with Keyfall: 8 kHz, 16 bit, one channel.
pub(super) const RECORDING: &[u8] = include_bytes!("../../../../assets/speech.wav");

/// Samples of a WAV file, as they stand in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Speech(Vec<i16>);

impl Speech {
    /// Reads a 16-bit mono WAV.
    pub(super) fn from_wav(octets: &[u8]) -> anyhow::Result<Self> {
        ensure!(octets.get(..4) == Some(b"RIFF"), "not a WAV file");
        let mut rest = octets.get(12..).context("a WAV file without chunks")?;
        while let (Some(name), Some(len)) = (rest.get(..4), rest.get(4..8)) {
            let len = u32::from_le_bytes(len.try_into().unwrap_or_default()) as usize;
            let body = rest.get(8..8 + len).context("a WAV file that was cut")?;
            if name == b"data" {
                let samples = body
                    .chunks_exact(2)
                    .map(|two| i16::from_le_bytes([two[0], two[1]]));
                return Ok(Self(samples.collect()));
            }
            rest = rest.get(8 + len + len % 2..).unwrap_or(&[]);
        }
        bail!("a WAV file without samples")
    }

    /// From the payloads of RTP packets of PCM, 16 bit, big endian (RFC 3551 section 4.5.11).
    pub(super) fn from_payloads<'p>(payloads: impl Iterator<Item = &'p [u8]>) -> Self {
        let two = |payload: &'p [u8]| payload.chunks_exact(2);
        Self(
            payloads
                .flat_map(two)
                .map(|two| i16::from_be_bytes([two[0], two[1]]))
                .collect(),
        )
    }

    /// A WAV file that any player opens.
    pub(super) fn to_wav(&self) -> Vec<u8> {
        let data = u32::try_from(self.0.len() * 2).unwrap_or(u32::MAX);
        let mut wav = Vec::with_capacity(44 + self.0.len() * 2);
        wav.extend_from_slice(b"RIFF");
        wav.extend_from_slice(&(36 + data).to_le_bytes());
        wav.extend_from_slice(b"WAVEfmt ");
        wav.extend_from_slice(&16u32.to_le_bytes());
        wav.extend_from_slice(&[1, 0, 1, 0]);
        wav.extend_from_slice(&RATE.to_le_bytes());
        wav.extend_from_slice(&(RATE * 2).to_le_bytes());
        wav.extend_from_slice(&[2, 0, 16, 0]);
        wav.extend_from_slice(b"data");
        wav.extend_from_slice(&data.to_le_bytes());
        self.0
            .iter()
            .for_each(|sample| wav.extend_from_slice(&sample.to_le_bytes()));
        wav
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// So many samples of the beginning.
    pub(super) fn first(&self, samples: usize) -> Self {
        Self(self.0.iter().copied().take(samples).collect())
    }

    /// Said so many times, one after the other.
    pub(super) fn repeated(&self, times: usize) -> Self {
        Self(self.0.repeat(times))
    }

    /// How many samples differ, missing and surplus ones included.
    pub(super) fn differing(&self, other: &Self) -> usize {
        let unlike = self.0.iter().zip(&other.0).filter(|(a, b)| a != b).count();
        unlike + self.0.len().abs_diff(other.0.len())
    }

    /// The longest tail of this recording that `other` is, sample for sample: what a late joiner
    /// hears. 0 where it is no tail.
    pub(super) fn tail_heard(&self, other: &Self) -> usize {
        if !other.0.is_empty() && self.0.ends_with(&other.0) {
            other.0.len()
        } else {
            0
        }
    }

    /// Sixteen-octet pieces of the payload, by which the plain speech would be recognised in a
    /// capture; silence is left out.
    pub(super) fn traces(&self) -> Vec<[u8; 16]> {
        let loud = |piece: &&[i16]| piece.iter().filter(|sample| sample.abs() > 500).count() > 5;
        let octets = |piece: &[i16]| {
            let mut octets = [0; 16];
            for (two, sample) in octets.chunks_exact_mut(2).zip(piece) {
                two.copy_from_slice(&sample.to_be_bytes());
            }
            octets
        };
        self.0.chunks_exact(8).filter(loud).map(octets).collect()
    }
}

/// What sends the speech as RTP.
pub(super) enum Sender {
    Ffmpeg(Child),
    BuiltIn(std::thread::JoinHandle<anyhow::Result<()>>),
}

impl Sender {
    /// Sends `wav` to `to` in real time, the first packet numbered `first`; by ffmpeg where it is
    /// installed.
    pub(super) fn start(
        wav: &Path,
        speech: &Speech,
        to: SocketAddr,
        first: u16,
    ) -> anyhow::Result<Self> {
        if ffmpeg_is_here() {
            let child = Command::new("ffmpeg")
                .args(["-nostdin", "-loglevel", "error", "-re", "-i"])
                .arg(wav)
                .args(["-ar", "8000", "-ac", "1", "-c:a", "pcm_s16be", "-f", "rtp"])
                .args(["-seq", &first.to_string()])
                .arg(format!("rtp://{to}?pkt_size=172"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("ffmpeg does not start")?;
            return Ok(Self::Ffmpeg(child));
        }
        Ok(Self::built_in(speech, to, first))
    }

    /// The same without any other tool.
    pub(super) fn built_in(speech: &Speech, to: SocketAddr, first: u16) -> Self {
        let samples = speech.0.clone();
        Self::BuiltIn(std::thread::spawn(move || send(&samples, to, first)))
    }

    /// The name in reports.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ffmpeg(_) => "ffmpeg",
            Self::BuiltIn(_) => "the built-in sender",
        }
    }

    /// Waits until the last packet was sent.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Ffmpeg(mut child) => {
                let status = child.wait().context("ffmpeg is lost")?;
                ensure!(status.success(), "ffmpeg failed: {status}");
                Ok(())
            }
            Self::BuiltIn(thread) => thread
                .join()
                .map_err(|_| anyhow::anyhow!("the sender panicked"))?,
        }
    }
}

fn ffmpeg_is_here() -> bool {
    let tried = Command::new("ffmpeg")
        .arg("-version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// 10 ms in a packet, as ffmpeg's 172-octet packets hold it.
fn send(samples: &[i16], to: SocketAddr, first: u16) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("no socket for the speech")?;
    let began = Instant::now();
    let mut packet = Vec::with_capacity(12 + 2 * IN_PACKET);
    for (count, piece) in samples.chunks(IN_PACKET).enumerate() {
        let sequence = first.wrapping_add(u16::try_from(count % 65_536).unwrap_or(0));
        let timestamp = u32::try_from(count * IN_PACKET).unwrap_or(0);
        packet.clear();
        packet.extend_from_slice(&[0x80, 97]);
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&SSRC.to_be_bytes());
        piece
            .iter()
            .for_each(|sample| packet.extend_from_slice(&sample.to_be_bytes()));
        let due = Duration::from_micros(count as u64 * IN_PACKET as u64 * 1_000_000 / 8000);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        socket
            .send_to(&packet, to)
            .context("the speech cannot be sent")?;
    }
    Ok(())
}

const RATE: u32 = 8000;
const IN_PACKET: usize = 80;
const SSRC: u32 = 0x4b46_0001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_is_mono_speech_that_survives_writing_and_reading() {
        let speech = Speech::from_wav(RECORDING).expect("our own file");
        assert!(speech.len() > 40_000 && speech.traces().len() > 1000);
        let again = Speech::from_wav(&speech.to_wav()).expect("written by us");
        assert_eq!(speech.differing(&again), 0);
    }

    #[test]
    fn missing_and_changed_samples_are_counted_and_a_tail_is_known() {
        let whole = Speech(vec![1, 2, 3, 4]);
        assert_eq!(whole.differing(&Speech(vec![1, 9, 3])), 2);
        assert_eq!(whole.tail_heard(&Speech(vec![3, 4])), 2);
        assert_eq!(whole.tail_heard(&Speech(vec![2, 3])), 0);
    }
}

/**
 * What the stack can carry: one raw libp2p stream between two processes over the same swarm key, Noise and Yamux, with
 * the same frames, from one buffer to nowhere: no request, hash, disk or parsing. Plain, as a user of libp2p writes it:
 * a frame a send(), V8 as it comes. Tuned, with all that Shoal found for itself: four frames a send() and V8's flags.
 * Run by itself it prints both: `node scripts/bench/raw-stream.ts SIZE`.
 */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { multiaddr } from '@multiformats/multiaddr'
import type { Stream } from '@libp2p/interface'
import { FRAME_PAYLOAD_BYTES_MAX, GiB, silentLogger } from '../../src/base/index.ts'
import { tuneForBulk } from '../../src/base/runtime.ts'
import { createNetwork, type Network } from '../../src/discovery/index.ts'
import { parseSize } from '../../src/cli/units.ts'

const PROTOCOL = '/shoal-bench/raw/1'
const FRAME_BYTES = FRAME_PAYLOAD_BYTES_MAX + 9
/** As Shoal's server sends them. */
const FRAMES_PER_SEND = 4
const SWARM_KEY = new Uint8Array(32).fill(7)

/** Seconds to receive `bytes` from another process, from the request to the last byte. */
export async function rawStreamSeconds (bytes: number, kind: 'plain' | 'tuned'): Promise<number> {
  const sender = fork(fileURLToPath(import.meta.url), ['--send', kind], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const receiver = fork(fileURLToPath(import.meta.url), ['--receive', kind], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  try {
    const address = await new Promise<string>(resolve => sender.once('message', (message: string) => { resolve(message) }))
    const seconds = new Promise<number>((resolve, reject) => {
      receiver.once('message', message => { resolve(Number(message)) })
      receiver.once('exit', () => { reject(new Error('the receiver of the raw stream ended')) })
    })
    receiver.send({ address, bytes })
    return await seconds
  } finally {
    sender.kill()
    receiver.kill()
  }
}

async function network (): Promise<Network> {
  const made = await createNetwork({ transport: 'tcp', listen: ['/ip4/127.0.0.1/tcp/0'], swarmKey: SWARM_KEY, maxConnections: 10, inboundPerSecond: 100, logger: silentLogger })
  await made.start()
  return made
}

async function send (): Promise<void> {
  const made = await network()
  await made.handle(PROTOCOL, stream => {
    stream.addEventListener('message', event => {
      const request = event.data.subarray()
      pour(stream, Number(Buffer.from(request).toString()))
    }, { once: true })
  })
  process.send?.(made.getMultiaddrs()[0]?.toString())
}

/** By the 'drain' event: the promise of onDrain() stays resolved after the first time (libp2p 3.3), so it would hold nothing back. */
function pour (stream: Stream, bytes: number): void {
  const frames = new Uint8Array(kind === 'tuned' ? FRAMES_PER_SEND * FRAME_BYTES : FRAME_BYTES).fill(1)
  let sent = 0
  const more = (): void => {
    while (sent < bytes && !stream.writableNeedsDrain) {
      sent += frames.length
      stream.send(frames)
    }
  }
  // libp2p marks the stream writable in a microtask of the event; this one comes after it.
  stream.addEventListener('drain', () => { queueMicrotask(more) })
  more()
}

async function receive (address: string, bytes: number): Promise<number> {
  const made = await network()
  const connection = await made.dial(multiaddr(address))
  const stream = await connection.newStream(PROTOCOL)
  const started = performance.now()
  return await new Promise(resolve => {
    let received = 0
    stream.addEventListener('message', event => {
      received += event.data.byteLength
      if (received >= bytes) resolve((performance.now() - started) / 1000)
    })
    stream.send(Buffer.from(String(bytes)))
  })
}

const [role, kind] = process.argv.slice(2)
if (kind === 'tuned') tuneForBulk()
if (role === '--send') await send()
else if (role === '--receive') process.once('message', (task: { address: string, bytes: number }) => { void receive(task.address, task.bytes).then(seconds => process.send?.(seconds)) })
else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const bytes = parseSize(role ?? '1GiB')
  for (const each of ['plain', 'tuned'] as const) {
    const seconds = await rawStreamSeconds(bytes, each)
    console.log(`${each} ${seconds.toFixed(2)} s, ${(bytes / GiB / seconds).toFixed(3)} GiB/s`)
  }
}

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { Stream } from '@libp2p/interface'
import { FRAME_PAYLOAD_BYTES_MAX, MiB, seededRandom, silentLogger, systemClock, systemRandom } from '../../../src/base/index.ts'
import { createLinkLimiter, createNetwork, type LinkLimiter, type Network } from '../../../src/discovery/index.ts'

const PROTOCOL = '/test/bulk/1'

describe('bytes in bulk', () => {
  const networks: Network[] = []
  const swarmKey = systemRandom.bytes(32)

  const start = async (transport: 'tcp' | 'memory', linkLimiter?: LinkLimiter): Promise<Network> => {
    const network = await createNetwork({
      listen: [transport === 'tcp' ? '/ip4/127.0.0.1/tcp/0' : `/memory/bulk-${networks.length}-${Math.random()}`],
      transport,
      swarmKey,
      maxConnections: 50,
      inboundPerSecond: 100,
      logger: silentLogger,
      ...(linkLimiter === undefined ? {} : { linkLimiter })
    })
    await network.start()
    networks.push(network)
    return network
  }
  const openTo = async (from: Network, to: Network): Promise<Stream> => {
    const connection = await from.dial(to.getMultiaddrs()[0] ?? assert.fail())
    return await connection.newStream(PROTOCOL)
  }

  afterEach(async () => { await Promise.all(networks.splice(0).map(async network => { await network.stop() })) })

  it('arrive whole over TCP, swarm key, Noise and Yamux, as slowly as they are read, and nobody holds more than a window', async () => {
    const total = 64 * MiB
    const [server, client] = [await start('tcp'), await start('tcp')]
    const frame = Buffer.from(seededRandom(1).bytes(FRAME_PAYLOAD_BYTES_MAX))
    const sentHash = createHash('sha256')
    let sent = 0
    let received = 0
    let ahead = 0
    await server.handle(PROTOCOL, async stream => {
      while (sent < total) {
        const bytes = frame.subarray(0, Math.min(frame.length, total - sent))
        sentHash.update(bytes)
        sent += bytes.length
        ahead = Math.max(ahead, sent - received)
        if (!stream.send(bytes)) await drained(stream)
      }
      await stream.close()
    })
    const stream = await openTo(client, server)
    const receivedHash = createHash('sha256')
    await new Promise<void>((resolve, reject) => {
      let pauses = 0
      stream.addEventListener('message', ({ data }) => {
        for (const bytes of data instanceof Uint8Array ? [data] : data) receivedHash.update(bytes)
        received += data.byteLength
        // Every 8 MiB the reader has something else to do.
        if (Math.floor(received / (8 * MiB)) > pauses) {
          pauses++
          queueMicrotask(() => { if (stream.status === 'open' && received < total) stream.pause() })
          setTimeout(() => { if (stream.status === 'open') stream.resume() }, 60)
        }
        if (received === total) resolve()
      })
      stream.addEventListener('close', ({ error }) => { if (error !== undefined) reject(error) })
    })
    assert.equal(received, total)
    assert.equal(receivedHash.digest('hex'), sentHash.digest('hex'))
    // The stream's window, twice what a socket buffers each side, and some frames.
    assert.ok(ahead < 16 * MiB, `the sender was ${ahead} bytes ahead`)
  })

  for (const transport of ['tcp', 'memory'] as const) {
    it(`keep to the cap of the sender's link, over all its streams together (${transport})`, async () => {
      const rate = 16 * MiB
      const limiter = createLinkLimiter({ sendBytesPerSecond: rate, receiveBytesPerSecond: rate, clock: systemClock })
      const server = await start(transport, limiter)
      await sendTo(server, 40 * MiB)
      const clients = [await start(transport), await start(transport)]
      await within(clients, server, 40 * MiB, rate)
    })

    it(`keep to the cap of the receiver's link (${transport})`, async () => {
      const rate = 16 * MiB
      const limiter = createLinkLimiter({ sendBytesPerSecond: rate, receiveBytesPerSecond: rate, clock: systemClock })
      const server = await start(transport)
      await sendTo(server, 40 * MiB)
      const client = await start(transport, limiter)
      await within([client], server, 40 * MiB, rate)
    })
  }

  const sendTo = async (server: Network, bytes: number): Promise<void> => {
    await server.handle(PROTOCOL, async stream => {
      const frame = Buffer.alloc(FRAME_PAYLOAD_BYTES_MAX, 7)
      for (let sent = 0; sent < bytes; sent += frame.length) {
        if (!stream.send(frame)) await drained(stream)
      }
      await stream.close()
    }, { maxInboundStreams: 8 })
  }

  /** Everything is received in the time the rate gives, within a tenth. */
  const within = async (clients: Network[], server: Network, expected: number, rate: number): Promise<void> => {
    // From before the streams open: the sender starts at once, and what it sent by then counts.
    const started = performance.now()
    // Each is read as soon as it is open: what nobody reads yet is buffered up to a limit, and beyond it the stream is cut off.
    const bytes = await Promise.all(clients.map(async client => await countBytes(await openTo(client, server))))
    const took = (performance.now() - started) / 1_000
    const total = bytes.reduce((sum, count) => sum + count, 0)
    assert.ok(total >= expected)
    const ratio = total / took / rate
    assert.ok(ratio > 0.9 && ratio < 1.1, `${(total / took / MiB).toFixed(2)} MiB/s where ${rate / MiB} are allowed`)
  }
})

async function countBytes (stream: Stream): Promise<number> {
  let received = 0
  return await new Promise((resolve, reject) => {
    stream.addEventListener('message', ({ data }) => { received += data.byteLength })
    stream.addEventListener('remoteCloseWrite', () => { setImmediate(() => { resolve(received) }) })
    stream.addEventListener('close', ({ error }) => { if (error === undefined) resolve(received); else reject(error) })
  })
}

async function drained (stream: Stream): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    // Each window update makes a drain event, however little it lets through; the flag is set in a microtask of it.
    const onDrain = (): void => {
      queueMicrotask(() => {
        if (stream.writableNeedsDrain) return
        stream.removeEventListener('drain', onDrain)
        resolve()
      })
    }
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', () => { reject(new Error('closed')) }, { once: true })
  })
}

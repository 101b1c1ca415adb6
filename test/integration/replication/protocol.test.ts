import assert from 'node:assert/strict'
import { setTimeout as wait } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Libp2p } from '@libp2p/interface'
import { silentLogger, systemClock, systemRandom, type Clock } from '../../../src/base/index.ts'
import { createNetwork } from '../../../src/discovery/index.ts'
import { encodeMessage } from '../../../src/replication/messages.ts'
import { MESSAGE, PONG, REPLICA_PROTOCOL } from '../../../src/replication/outbox.ts'
import { ReplicaProtocol } from '../../../src/replication/protocol.ts'
import type { ReplicaMessage } from '../../../src/replication/types.ts'
import { encodeFrame } from '../../../src/transfer/index.ts'
import { fastClock } from '../../../scripts/lib/fast-clock.ts'
import { until } from '../../support/until.ts'

const swarmKey = systemRandom.bytes(32)
const PING_MS = 200
const message = (shard: number): ReplicaMessage => ({ type: 'commit', model: 'bafyr4idqlwoa4bqzmcajfvs7jxj36mdhhg7zxzfao2bs52bxovntohsfe4', shard })

interface Peer extends AsyncDisposable { id: string, network: Libp2p, protocol: ReplicaProtocol, received: ReplicaMessage[] }

async function peer (clock: Clock = systemClock): Promise<Peer> {
  const network = await createNetwork({ transport: 'tcp', listen: ['/ip4/127.0.0.1/tcp/0'], swarmKey, maxConnections: 50, inboundPerSecond: 1_000, logger: silentLogger })
  await network.start()
  const received: ReplicaMessage[] = []
  const protocol = new ReplicaProtocol({ network, clock, random: systemRandom, logger: silentLogger, isBanned: () => false }, { pingMs: PING_MS }, (_, said) => { received.push(said) })
  await protocol.start()
  return { id: network.peerId.toString(), network, protocol, received, [Symbol.asyncDispose]: async () => { await protocol.stop(); await network.stop() } }
}

/** Goes on when it is told to. */
class StoppedClock implements Clock {
  readonly now = systemClock.now
  readonly #timers = new Set<{ at: number, fn: () => void }>()
  #now = 0

  monotonic = (): number => this.#now

  setTimeout = (fn: () => void, delayMs: number): () => void => {
    const timer = { at: this.#now + delayMs, fn }
    this.#timers.add(timer)
    return () => { this.#timers.delete(timer) }
  }

  goOn (ms: number): void {
    this.#now += ms
    for (const timer of [...this.#timers].filter(({ at }) => at <= this.#now)) if (this.#timers.delete(timer)) timer.fn()
  }
}

/** `a` knows where `b` is, and no connection is open. */
async function introduce (a: Peer, b: Peer): Promise<void> {
  await a.network.peerStore.merge(b.network.peerId, { multiaddrs: b.network.getMultiaddrs() })
}

describe('the replica protocol', function () {
  this.timeout(60_000)

  it('dials by id, keeps one stream, and keeps the order', async () => {
    await using a = await peer()
    await using b = await peer()
    await introduce(a, b)
    for (let shard = 0; shard < 200; shard++) a.protocol.send(b.id, message(shard))
    await until('all came', () => b.received.length === 200, { withinMs: 15_000 })
    assert.deepEqual(b.received, Array.from({ length: 200 }, (_, shard) => message(shard)))
    b.protocol.send(a.id, message(1))
    await until('the answer came', () => a.received.length === 1, { withinMs: 15_000 })
    const streams = a.network.getConnections(b.network.peerId).flatMap(({ streams }) => streams).filter(({ protocol }) => protocol === REPLICA_PROTOCOL)
    assert.equal(streams.length, 2)
    assert.equal(a.protocol.messagesSent, 200)
    assert.ok(a.protocol.bytesSent > 200 * 60)
  })

  it('keeps an eye on who is watched, and on nobody else', async () => {
    await using a = await peer()
    await using b = await peer()
    await introduce(a, b)
    await wait(3 * PING_MS)
    assert.equal(a.protocol.heardAt(b.id), undefined)
    a.protocol.watch(new Set([b.id, a.id]))
    await until('it is heard', () => a.protocol.heardAt(b.id) !== undefined, { withinMs: 15_000 })
    const from = Date.now()
    while (Date.now() - from < 8 * PING_MS) {
      await wait(20)
      assert.ok(systemClock.monotonic() - (a.protocol.heardAt(b.id) ?? 0) < 4 * PING_MS)
    }
    assert.ok(b.protocol.heardAt(a.id) !== undefined) // a ping is a sign of life too
    await b.network.stop()
    await wait(6 * PING_MS)
    assert.ok(systemClock.monotonic() - (a.protocol.heardAt(b.id) ?? 0) > 4 * PING_MS)
  })

  it('finds a watched peer again whose connection broke', async () => {
    const clock = fastClock(5)
    await using a = await peer(clock)
    await using b = await peer(clock)
    await introduce(a, b)
    a.protocol.watch(new Set([b.id]))
    await until('it is heard', () => a.protocol.heardAt(b.id) !== undefined, { withinMs: 15_000 })
    for (const connection of a.network.getConnections(b.network.peerId)) connection.abort(new Error('cut'))
    const cutAt = clock.monotonic()
    await until('it is heard again', () => (a.protocol.heardAt(b.id) ?? 0) > cutAt + 500, { withinMs: 15_000 })
  })

  it('takes the time it did not run itself for nobody\'s silence', async () => {
    let stoppedMs = 0
    const clock: Clock = { ...systemClock, monotonic: () => systemClock.monotonic() + stoppedMs }
    await using a = await peer(clock)
    await using b = await peer()
    await introduce(a, b)
    a.protocol.watch(new Set([b.id]))
    await until('it is heard', () => a.protocol.heardAt(b.id) !== undefined, { withinMs: 15_000 })
    a.protocol.awake()
    stoppedMs = 60_000
    a.protocol.awake()
    assert.ok(clock.monotonic() - (a.protocol.heardAt(b.id) ?? 0) < 4 * PING_MS)
    const connection = a.network.getConnections(b.network.peerId)[0]
    await wait(3 * PING_MS)
    assert.equal(a.network.getConnections(b.network.peerId)[0], connection)
  })

  it('closes the stream of who breaks it, and listens to the next', async () => {
    await using a = await peer()
    await using b = await peer()
    await introduce(a, b)
    const nonsense = [encodeFrame(MESSAGE, new Uint8Array(10)), encodeFrame(PONG, new Uint8Array(0)), encodeFrame(77, new Uint8Array(0)), Uint8Array.of(255, 255, 255, 255, MESSAGE)]
    for (const bytes of nonsense) {
      const stream = await a.network.dialProtocol(b.network.peerId, REPLICA_PROTOCOL)
      stream.send(bytes)
      await until('its stream is closed', () => stream.status !== 'open', { withinMs: 15_000 })
    }
    a.protocol.send(b.id, message(5))
    await until('the message came', () => b.received.length === 1, { withinMs: 15_000 })
  })

  it('takes no more than two streams from a peer, the newest ones', async () => {
    await using a = await peer()
    await using b = await peer()
    await introduce(a, b)
    const first = await a.network.dialProtocol(b.network.peerId, REPLICA_PROTOCOL)
    const second = await a.network.dialProtocol(b.network.peerId, REPLICA_PROTOCOL)
    const third = await a.network.dialProtocol(b.network.peerId, REPLICA_PROTOCOL)
    await until('the first stream is closed', () => first.status !== 'open', { withinMs: 15_000 })
    for (const [shard, stream] of [third, second].entries()) {
      stream.send(encodeFrame(MESSAGE, encodeMessage(message(shard))))
      await until('the message came', () => b.received.length === shard + 1, { withinMs: 15_000 })
    }
    assert.deepEqual([b.received, second.status, third.status], [[message(0), message(1)], 'open', 'open'])
  })

  it('reads slower from who says too much, and loses nothing of it', async () => {
    const clock = new StoppedClock()
    await using a = await peer()
    await using b = await peer(clock)
    await introduce(a, b)
    const stream = await a.network.dialProtocol(b.network.peerId, REPLICA_PROTOCOL)
    for (let shard = 0; shard < 1_500; shard++) stream.send(encodeFrame(MESSAGE, encodeMessage(message(shard))))
    // What is said after all of them, over another stream of the same connection.
    a.protocol.send(b.id, message(1_500))
    await until('what was said last came', () => b.received.some(said => isDeepStrictEqual(said, message(1_500))), { withinMs: 15_000 })
    assert.ok(b.received.length >= 1_000 && b.received.length < 1_450, `${b.received.length}`)
    await until('all came', () => {
      clock.goOn(1_000)
      return b.received.length === 1_501
    }, { withinMs: 15_000 })
  })
})

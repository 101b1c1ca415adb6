/**
 * What the replicators of a quiet swarm say to each other in an hour, by the number of nodes: the real replicator over a
 * simulated clock and a network that loses nothing. Each node publishes a model, so that the models grow with the nodes
 * and the holders that a node shares models with do not.
 */
import { seededRandom } from '../../src/base/index.ts'
import { encodeMessage } from '../../src/replication/messages.ts'
import { Replicator } from '../../src/replication/replicator.ts'
import { defaultReplication } from '../../src/replication/settings.ts'
import type { PolicyRecord, ReplicaMessage } from '../../src/replication/types.ts'
import { EventQueue } from '../sim/queue.ts'
import type { Row } from './lib.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const SHARD_BYTES = [256e6, 100e6]
const TARGET = 3
const REACHABLE_MAX = 16
/** A watched peer is pinged each five seconds and answers; a frame's head and Yamux's, without encryption. */
const PINGS_PER_HOUR = HOUR / 5_000
const PING_BYTES = 2 * (5 + 12)

interface Traffic { messages: number, bytes: number, watched: number }

export function benchControlTraffic (nodes: readonly number[], log: (line: string) => void): Row[] {
  const measured = nodes.map(count => {
    const traffic = hourOf(count)
    log(`control traffic, ${count} nodes: ${traffic.messages.toFixed(0)} messages, ${(traffic.bytes / 1024).toFixed(0)} KiB, ${traffic.watched.toFixed(1)} peers watched`)
    return traffic
  })
  const perPeer = measured.map(({ bytes, watched }) => bytes / watched)
  const growth = (perPeer.at(-1) ?? NaN) / (perPeer[0] ?? NaN)
  return [{
    what: `control traffic per node and hour, ${nodes.join(', ')} nodes`,
    figure: `${measured.map(({ bytes }) => (bytes / 1024).toFixed(0)).join(', ')} KiB`,
    beside: `${measured.map(({ watched }) => watched.toFixed(1)).join(', ')} peers with shared models`,
    ratio: `${growth.toFixed(2)} a peer`,
    mustReach: '<= 1.1 a peer',
    reached: growth <= 1.1
  }]
}

function hourOf (count: number): Traffic {
  const queue = new EventQueue()
  const names = Array.from({ length: count }, (_, i) => `n${i}`)
  const replicators = new Map<string, Replicator>()
  const providers = new Map<string, Set<string>>()
  const watched = new Map<string, number>()
  const random = seededRandom(count)
  let messages = 0
  let bytes = 0
  const counted = (message: ReplicaMessage): void => {
    if (queue.now < HOUR) return
    messages++
    bytes += encodeMessage(message).length
  }
  for (const [index, self] of names.entries()) {
    const held = new Map<string, Set<number>>()
    const near = (): string[] => Array.from({ length: REACHABLE_MAX }, (_, i) => names[(index + 1 + i * Math.max(1, Math.floor(count / REACHABLE_MAX))) % count] ?? self)
    const replicator: Replicator = new Replicator({
      self,
      labels: {},
      settings: { ...defaultReplication, donateBytes: 1e12 },
      random: seededRandom(index),
      commitments: [],
      policies: [],
      ports: {
        send: (to, message) => {
          counted(message)
          queue.after(1, () => { replicators.get(to)?.receive(self, message, queue.now) })
        },
        heardAt: () => queue.now,
        watch: peers => { watched.set(self, peers.size) },
        reachable: near,
        find: model => {
          queue.after(100, () => { replicator.found(model, [...providers.get(model) ?? []], queue.now) })
          return true
        },
        pull: ({ model, shard }) => {
          queue.after(2_000, () => {
            const shards = held.get(model) ?? new Set()
            held.set(model, shards.add(shard))
            replicator.model({ cid: model, shardBytes: SHARD_BYTES, held: shards, kept: false }, queue.now)
            replicator.pulled(model, shard, true, queue.now)
          })
        },
        cancel: () => undefined,
        prove: (_model, shards, nonce, done) => { queue.after(10, () => { done(shards.map(shard => Uint8Array.from({ length: 32 }, (_, i) => (nonce[i % nonce.length] ?? 0) ^ shard))) }) },
        scrub: () => undefined,
        save: () => undefined,
        savePolicies: () => undefined,
        readPolicy: record => JSON.parse(Buffer.from(record).toString(), (key, value: unknown) => key === 'bytes' ? record : value) as PolicyRecord,
        diskFreeBytes: () => 1e12,
        note: () => undefined
      }
    })
    replicators.set(self, replicator)
    replicator.start(0)
    const tick = (): void => { replicator.tick(queue.now); queue.after(1_000, tick) }
    queue.at(random.next() * 1_000, tick)
    queue.at(random.next() * 10 * MINUTE, () => {
      const model = `m${index}`
      held.set(model, new Set([0, 1]))
      providers.set(model, new Set([self]))
      replicator.model({ cid: model, shardBytes: SHARD_BYTES, held: [0, 1], kept: true }, queue.now)
      const record = { model, min: 2, target: TARGET, max: 5, sequence: 1, publisher: self, bytes: 0 }
      replicator.setPolicy({ ...record, bytes: Buffer.from(JSON.stringify(record).padEnd(280)) }, queue.now)
    })
  }
  while (queue.step(2 * HOUR)) { /* each step runs what is next */ }
  const peers = [...watched.values()].reduce((sum, size) => sum + size, 0) / count
  return { messages: messages / count + PINGS_PER_HOUR * peers, bytes: bytes / count + PINGS_PER_HOUR * PING_BYTES * peers, watched: peers }
}

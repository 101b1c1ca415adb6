import { randomInt, shuffle } from '../../src/base/index.ts'
import type { PolicyRecord, ReplicaPorts } from '../../src/replication/types.ts'
import { digestOf } from './disk.ts'
import type { SimNode } from './node.ts'
import { SECOND, keyOf } from './types.ts'
import type { World } from './world.ts'

/** As many connections as a node in a large swarm has, about. */
const REACHABLE_MAX = 16
/** Providers in one answer of the DHT. */
const PROVIDERS_MAX = 20
/** Re-hashing one shard. */
const SCRUB_MS = 2 * SECOND

/** Thrown by save() and savePolicies() while the volume under the ledger is full. */
export class LedgerFullError extends Error {
  override readonly name = 'LedgerFullError'
}

/** A record travels as JSON here: who signed what is the adapter's concern, and readPolicy is its place. */
export function policyBytes (record: Omit<PolicyRecord, 'bytes'>): Uint8Array {
  const { model, sequence, publisher, min, target, max } = record
  return new TextEncoder().encode(JSON.stringify({ model, sequence, publisher, min, target, max }))
}

const read = new WeakMap<Uint8Array, PolicyRecord>()
function readPolicy (bytes: Uint8Array): PolicyRecord {
  let record = read.get(bytes)
  if (record === undefined) {
    record = { ...JSON.parse(new TextDecoder().decode(bytes)) as Omit<PolicyRecord, 'bytes'>, bytes }
    read.set(bytes, record)
  }
  return record
}

export function createPorts (world: World, node: SimNode): ReplicaPorts {
  const life = node.life
  const alive = (): boolean => node.life === life
  const keyOfShard = (model: string, shard: number): number => keyOf(world.modelOf(model)?.index ?? -1, shard)
  const later = (ms: number, run: () => void): void => {
    world.queue.after(ms, () => {
      if (!alive()) return
      if (node.hung) node.inbox.push(run)
      else run()
    })
  }
  return {
    send: (to, message) => {
      const other = world.nodeOf(to)
      if (alive()) world.checks.settling.sends(node, message)
      if (alive() && other !== undefined && other !== node) world.network.send(node, other, message)
    },
    heardAt: peerId => {
      const other = world.nodeOf(peerId)
      const at = other === undefined ? undefined : world.network.heardAt(node, other.index)
      return at === undefined ? undefined : node.local(at)
    },
    watch: peerIds => {
      node.watched = new Set([...peerIds].map(id => world.nodeOf(id)?.index ?? -1))
    },
    reachable: () => {
      const { nodes } = world
      const ids = []
      // Each starts somewhere else, as connections do.
      for (let i = 1; i < nodes.length && ids.length < REACHABLE_MAX; i++) {
        const other = nodes[(node.index * 7 + i) % nodes.length] as SimNode
        if (other !== node && world.network.good(node.index, other.index)) ids.push(other.name)
      }
      return ids
    },
    find: cid => {
      const model = world.modelOf(cid)
      if (model === undefined) return true
      const random = world.randoms.find
      const delay = 300 + randomInt(random, 3_000)
      const stale = random.next()
      later(delay, () => {
        const found: string[] = []
        const gone: string[] = []
        for (const index of world.providers[model.index] ?? []) {
          const other = world.nodes[index] as SimNode
          if (other === node) continue
          const here = world.network.good(node.index, index) && other.disk.heldOf(model).length > 0
          if (here) found.push(other.name)
          else gone.push(other.name)
        }
        const all = [...found, ...gone.slice(0, Math.ceil(stale * gone.length))]
        const providers = shuffle(world.randoms.find, all).slice(0, PROVIDERS_MAX)
        node.replicator?.found(cid, providers, node.local(world.now))
      })
      return true
    },
    pull: job => { world.transfers.pull(node, job) },
    cancel: (model, shard) => { world.transfers.cancel(node, keyOfShard(model, shard)) },
    prove: (model, shards, nonce, done) => {
      const answer = (): void => {
        done(shards.map(shard => {
          const key = keyOfShard(model, shard)
          return node.disk.has(key) ? digestOf(key, nonce, node.disk.right(key)) : new Uint8Array(0)
        }))
      }
      // A disk that has other things to do answers later.
      if (world.randoms.disk.next() < 0.25) later(20 + randomInt(world.randoms.disk, 400), answer)
      else answer()
    },
    scrub: (model, shard) => {
      const key = keyOfShard(model, shard)
      later(SCRUB_MS, () => {
        if (!node.lies && node.disk.has(key) && !node.disk.right(key)) node.finds(key)
      })
    },
    save: change => {
      const keys = change.shards.map(shard => keyOfShard(change.model, shard))
      const { committed, stale } = node.disk
      if (node.readOnly) {
        // What its user removed is no promise any more, whatever the ledger says.
        if (node.forgetting) for (const key of keys) if (committed.delete(key)) stale.add(key)
        throw new LedgerFullError('disk full: the promise cannot be recorded')
      }
      for (const key of keys) {
        const wasStale = stale.delete(key)
        if (change.committed) {
          committed.add(key)
          node.disk.lostPromises.delete(key)
          node.tookAt.set(key, world.now)
        } else {
          committed.delete(key)
        }
        if (change.committed || !wasStale) world.checks.saved(node, key, change.committed)
      }
    },
    savePolicies: ({ saved, dropped }) => {
      if (node.readOnly) throw new LedgerFullError('disk full: the policy cannot be recorded')
      for (const { model, publisher } of dropped) node.disk.policies.delete(`${model} ${publisher}`)
      for (const record of saved) {
        const name = `${record.model} ${record.publisher}`
        if ((node.disk.policies.get(name)?.sequence ?? -1) < record.sequence) node.disk.policies.set(name, record)
      }
    },
    readPolicy,
    diskFreeBytes: () => node.disk.free,
    note: event => { world.noted(node, event) }
  }
}

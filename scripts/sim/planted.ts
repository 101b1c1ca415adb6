import { challengeSeed } from '../../src/replication/challenge.ts'
import type { ReplicaMessage } from '../../src/replication/types.ts'
import { digestOf } from './disk.ts'
import type { SimNode } from './node.ts'
import { NEVER, withPolicy, type Plant } from './plant.ts'
import { diskPlants } from './planted-disk.ts'
import { promisePlants } from './planted-promises.ts'

/** Whatever a peer answers, it is what was expected: for that the nonces are remembered here. */
const believesProofs: Plant['ports'] = (ports, node, keyOf) => ({
  ...ports,
  send: (to, message) => {
    if (message.type === 'challenge') node.challenges.set(message.id, { nonce: challengeSeed(message.nonce, node.name, to), keys: message.shards.map(shard => keyOf(message.model, shard)) })
    ports.send(to, message)
  }
})

function trusts (message: ReplicaMessage, to: SimNode): ReplicaMessage {
  if (message.type !== 'proof') return message
  const asked = to.challenges.get(message.id)
  if (asked === undefined) return message
  to.challenges.delete(message.id)
  return { ...message, digests: asked.keys.map(key => digestOf(key, asked.nonce, true)) }
}

export const plants: readonly Plant[] = [
  ...promisePlants,
  ...diskPlants,
  {
    name: 'claims-count-as-proven',
    seed: 2,
    what: 'a proof is taken as right whatever it says',
    faults: ['liar'],
    ports: believesProofs,
    receive: (message, _from, to) => trusts(message, to)
  },
  {
    name: 'records-count-as-replicas',
    what: 'who is said to have something of a model is taken for a holder of all of it',
    faults: ['loss', 'disk-loss', 'crash'],
    ports: believesProofs,
    receive: (message, _from, to) => message.type !== 'state'
      ? trusts(message, to)
      : {
          ...message,
          models: message.models.map(claim => claim.cached.some(byte => byte !== 0) || claim.committed.some(byte => byte !== 0) ? { ...claim, committed: allOf(claim.shards) } : claim)
        }
  },
  {
    name: 'two-trimmers-at-once',
    seed: 2_156,
    what: 'the answer to a release is not looked at',
    faults: ['message-loss', 'crash', 'drain', 'domain-loss'],
    hours: 3,
    receive: message => message.type === 'keep' ? { ...message, ok: true } : message
  },
  {
    name: 'forgets-commitments',
    seed: 2,
    what: 'a restart begins with no commitments, and garbage collection takes what was promised',
    faults: ['crash', 'reboot'],
    init: init => ({ ...init, commitments: [] })
  },
  {
    name: 'promises-are-not-durable',
    what: 'a commitment is announced and never written',
    faults: ['crash'],
    ports: ports => ({ ...ports, save: () => {} })
  },
  {
    name: 'coordinator-has-no-deputy',
    seed: 18,
    what: 'only rank 0 ever acts',
    faults: ['hang', 'loss', 'disk-loss'],
    settings: settings => ({ ...settings, rankDelayMs: NEVER })
  },
  {
    name: 'brake-never-releases',
    seed: 5,
    what: 'a lost zone brakes repair for ever',
    faults: ['domain-loss'],
    settings: settings => ({ ...settings, brakeMaxMs: NEVER })
  },
  {
    name: 'drain-exits-early',
    what: 'a drain is said to be done when it begins',
    faults: ['drain'],
    patch: replicator => { replicator.drainStatus = () => ({ left: [], bytesLeft: 0 }) }
  },
  {
    name: 'no-grace',
    seed: 3,
    what: 'whoever is down is replaced at once',
    faults: ['reboot'],
    settings: settings => ({ ...settings, graceDefaultMs: 0, graceTwoCopiesMs: 0 })
  },
  {
    name: 'endless-grace',
    what: 'whoever is down is waited for, while two copies are left',
    faults: ['loss', 'disk-loss'],
    settings: settings => ({ ...settings, graceDefaultMs: NEVER, graceTwoCopiesMs: NEVER })
  },
  {
    name: 'down-is-never-seen',
    what: 'silent peers stay suspect',
    faults: ['loss'],
    settings: settings => ({ ...settings, downMs: NEVER })
  },
  {
    name: 'one-observer-suffices',
    shows: 'repair moves at most 1.2 of the least possible',
    seed: 21,
    what: 'what others have heard of a silent peer is ignored',
    faults: ['one-way'],
    receive: message => message.type === 'seen' ? { ...message, ageMs: 1e9 } : message
  },
  {
    name: 'proofs-never-expire',
    seed: 2,
    what: 'who proved once is believed for ever',
    faults: ['liar'],
    settings: settings => ({ ...settings, proofTtlMs: NEVER })
  },
  {
    name: 'accepts-without-space',
    what: 'offers are accepted whatever is free',
    faults: ['crash'],
    init: init => ({ ...init, settings: { ...init.settings, donateBytes: NEVER }, ports: { ...init.ports, diskFreeBytes: () => NEVER } })
  },
  {
    name: 'commits-before-verified',
    seed: 4,
    what: 'a failed fetch counts as done',
    faults: ['hang', 'crash', 'rot', 'partition'],
    patch: replicator => {
      const pulled = replicator.pulled.bind(replicator)
      replicator.pulled = (model, shard, _ok, now) => { pulled(model, shard, true, now) }
    }
  },
  {
    name: 'rot-is-not-looked-for',
    what: 'neither the scrub nor a failed proof makes a node look at its disk',
    faults: ['rot'],
    ports: ports => ({ ...ports, scrub: () => {} }),
    scrubMs: NEVER
  },
  {
    name: 'policy-changes-do-not-spread',
    what: 'the first record of a publisher wins, not the newest',
    faults: ['pin'],
    receive: (message, _from, to) => message.type === 'state'
      ? { ...message, models: message.models.map(claim => to.replicator?.policyOf(claim.model)?.target === undefined || to.replicator.policyOf(claim.model)?.target === 0 ? claim : { ...claim, policies: [] }) }
      : message
  },
  {
    name: 'repairs-to-min-only',
    what: 'min is taken for target',
    faults: [],
    ports: withPolicy(record => ({ ...record, target: record.min })),
    patch: replicator => {
      const setPolicy = replicator.setPolicy.bind(replicator)
      replicator.setPolicy = (record, now) => setPolicy({ ...record, target: record.min }, now)
    }
  },
  {
    name: 'evicts-committed',
    what: 'garbage collection is told that nothing is kept',
    faults: [],
    patch: replicator => { replicator.keeps = () => false }
  },
  {
    name: 'goodbyes-are-not-heard',
    seed: 5,
    what: 'an orderly reboot is taken for a death',
    faults: ['reboot'],
    receive: message => message.type === 'state' ? { ...message, leaving: false } : message
  },
  {
    name: 'restarts-are-not-seen',
    what: 'a new life of a peer is taken for its old one, and its messages for old ones',
    faults: ['disk-loss', 'crash'],
    receive: message => message.type === 'state' ? { ...message, incarnation: 'the only one' } : message
  },
  {
    name: 'suspects-are-down',
    seed: 3,
    what: 'a second of silence is enough to be down, and no grace follows',
    faults: ['hang', 'crash'],
    settings: settings => ({ ...settings, suspectMs: 1_000, downMs: 1_000, graceTwoCopiesMs: 0, graceDefaultMs: 0 })
  }
]

function allOf (shards: number): Uint8Array {
  const bits = new Uint8Array(Math.ceil(shards / 8)).fill(0xff)
  if ((shards & 7) !== 0) bits[bits.length - 1] = (1 << (shards & 7)) - 1
  return bits
}

export function plantNamed (name: string): Plant {
  const plant = plants.find(each => each.name === name)
  if (plant === undefined) throw new RangeError(`no planted bug is called ${name}; there are: ${plants.map(each => each.name).join(', ')}`)
  return plant
}

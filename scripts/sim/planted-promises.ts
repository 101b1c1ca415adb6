import type { ReplicaPorts } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import { NEVER, withPolicy, type Plant } from './plant.ts'
import { LedgerFullError } from './ports.ts'

function withMax (times: number): (ports: ReplicaPorts) => ReplicaPorts {
  return ports => ({ ...ports, readPolicy: bytes => {
    const record = ports.readPolicy(bytes)
    return record === undefined ? undefined : { ...record, max: times * record.max }
  } })
}

/** What somebody got wrong about policies, what is promised and taken back, and whom to believe beyond a cut. */
export const promisePlants: readonly Plant[] = [
  {
    name: 'acts-before-settled',
    shows: 'nobody acts before its view has settled',
    what: 'a restarted node repairs and lets go by the first thing it sees',
    faults: ['crash', 'domain-loss', 'reboot'],
    settings: settings => ({ ...settings, settleMs: 0 })
  },
  {
    name: 'removed-is-still-promised',
    shows: 'what is removed is not promised',
    what: 'a model that its user removed stays promised',
    faults: ['forget'],
    patch: replicator => { replicator.forget = () => {} }
  },
  {
    name: 'removals-are-not-recorded',
    shows: 'what is removed is not promised',
    what: 'what the ledger could not be told of a removal it is never told',
    faults: ['forget', 'full-disk'],
    ports: ports => ({ ...ports, save: change => { if (change.committed) ports.save(change); else swallow(() => { ports.save(change) }) } })
  },
  {
    name: 'sequence-starts-anew',
    seed: 3,
    shows: 'every holder knows the policy',
    what: 'each record of a publisher is its first',
    faults: ['pin', 'forget'],
    patch: replicator => { replicator.nextSequence = () => 1 }
  },
  {
    name: 'publishers-overrule-each-other',
    shows: 'every holder knows the policy',
    what: 'the newest record wins, whoever signed it: one who unpins unpins for all',
    faults: ['publishers'],
    ports: withPolicy(record => ({ ...record, publisher: 'anyone' })),
    patch: (replicator, node) => {
      const setPolicy = replicator.setPolicy.bind(replicator)
      replicator.setPolicy = (record, now) => setPolicy({ ...record, publisher: 'anyone' }, now)
      replicator.nextSequence = cid => 1 + Math.max(0, ...[...node.disk.policies.values()].filter(record => record.model === cid).map(record => record.sequence))
    }
  },
  {
    name: 'one-publisher-is-heard',
    shows: 'every holder knows the policy',
    what: 'who publishes what others have published is not heard',
    faults: ['publishers'],
    receive: (message, _from, to) => message.type !== 'state'
      ? message
      : {
          ...message,
          models: message.models.map(claim => {
            const known = [...to.disk.policies.values()].find(record => record.model === claim.model)
            return known === undefined ? claim : { ...claim, policies: claim.policies.filter(bytes => publisherOf(bytes) === known.publisher) }
          })
        }
  },
  {
    name: 'policies-are-not-durable',
    shows: 'every holder knows the policy',
    seed: 4,
    what: 'a policy that the ledger refuses is in force all the same',
    faults: ['full-disk', 'publishers', 'pin'],
    ports: ports => ({ ...ports, savePolicies: change => { swallow(() => { ports.savePolicies(change) }) } })
  },
  {
    name: 'refused-policies-act',
    shows: 'what could not be recorded is not in force',
    seed: 10,
    what: 'the publisher is told that its policy could not be recorded, and it is in force all the same',
    faults: ['full-disk', 'publishers', 'pin'],
    ports: (ports, node) => ({ ...ports, savePolicies: change => { if (change.saved.some(({ publisher }) => publisher === node.name)) swallow(() => { ports.savePolicies(change) }); else ports.savePolicies(change) } }),
    patch: (replicator, node) => {
      const setPolicy = replicator.setPolicy.bind(replicator)
      replicator.setPolicy = (record, now) => {
        const set = setPolicy(record, now)
        if (node.readOnly) throw new LedgerFullError('disk full: the policy cannot be recorded')
        return set
      }
    }
  },
  {
    name: 'drain-forgets-what-is-done',
    shows: 'a drain comes to its end',
    what: 'what was handed over counts as left',
    faults: ['drain'],
    patch: replicator => {
      const drainStatus = replicator.drainStatus.bind(replicator)
      replicator.drainStatus = now => {
        const { left, bytesLeft } = drainStatus(now)
        return { left: [...left, ...replicator.models(now).map(({ model, target }) => ({ model, shard: 0, replicas: 0, target }))], bytesLeft }
      }
    }
  },
  {
    name: 'drained-with-promises',
    shows: 'a drain leaves no promises',
    what: 'what others have is handed over, whether or not the promise was taken back',
    faults: ['drain', 'full-disk'],
    patch: replicator => {
      const drainStatus = replicator.drainStatus.bind(replicator)
      replicator.drainStatus = now => {
        const left = drainStatus(now).left.filter(({ replicas, target }) => replicas < target)
        return { left, bytesLeft: left.length }
      }
    }
  },
  {
    name: 'ledger-failures-are-swallowed',
    what: 'what the ledger refuses counts as recorded',
    faults: ['drain', 'full-disk'],
    ports: ports => ({ ...ports, save: change => { swallow(() => { ports.save(change) }) } })
  },
  {
    name: 'drain-never-ends',
    shows: 'a drain comes to its end',
    what: 'who drains is never told that others keep theirs',
    faults: ['drain'],
    receive: (message, _from, to) => message.type === 'keep' && to.draining ? { ...message, ok: false } : message
  },
  {
    name: 'nothing-is-trimmed',
    shows: 'surplus stays below one per cent',
    what: 'who has too many is never told that others keep theirs',
    faults: ['partition'],
    receive: (message, _from, to) => message.type === 'keep' && !to.draining ? { ...message, ok: false } : message
  },
  {
    name: 'promises-what-it-misses',
    shows: 'beside a cut that stays all comes to rest',
    what: 'who sees too few promises to keep its own all the same, and brings back what is let go of on that',
    faults: ['one-way'],
    ports: (ports, node, keyOf) => ({
      ...ports,
      send: (to, message) => {
        const keeps = message.type === 'keep' && !node.draining && node.replicator?.settled === true && node.disk.committed.has(keyOf(message.model, message.shard))
        ports.send(to, keeps ? { ...message, ok: true } : message)
      }
    })
  },
  {
    name: 'a-cut-is-a-death',
    seed: 2,
    shows: 'repair moves at most 1.2 of the least possible',
    what: 'who is behind a cut is replaced at once, with neither grace nor brake',
    faults: ['partition'],
    settings: settings => ({ ...settings, graceDefaultMs: 0, graceTwoCopiesMs: 0, brakeWindowMs: -1 })
  },
  {
    name: 'counts-the-other-side',
    seed: 2,
    shows: 'nobody lets go below target',
    what: 'those who cannot be heard are taken to keep theirs',
    faults: ['partition', 'drain'],
    settings: settings => ({ ...settings, suspectMs: NEVER, downMs: NEVER, trimProofMs: NEVER }),
    ports: (ports, node) => ({
      ...ports,
      send: (to, message) => {
        ports.send(to, message)
        if (message.type === 'release') answerFor(node, to, message)
      }
    })
  },
  {
    name: 'pending-is-not-heard',
    shows: 'repair moves at most 1.2 of the least possible',
    what: 'what others are fetching already is offered again',
    faults: ['slow'],
    seed: 89,
    receive: message => message.type === 'state' ? { ...message, models: message.models.map(claim => ({ ...claim, pending: new Uint8Array(claim.pending.length) })) } : message
  },
  {
    name: 'copies-pile-up',
    seed: 2,
    shows: 'copies do not pile up',
    what: 'who is offered a shard does not mind how many claim to have it, nor who offers it how many say that it is bad',
    faults: ['liar'],
    settings: settings => ({ ...settings, disputedEveryMs: 0 }),
    ports: ports => ({ ...withMax(8)(ports), savePolicies: change => { ports.savePolicies({ ...change, saved: change.saved.map(record => ({ ...record, max: record.max / 8 })) }) } }),
    patch: replicator => {
      const [setPolicy, policyOf] = [replicator.setPolicy.bind(replicator), replicator.policyOf.bind(replicator)]
      replicator.setPolicy = (record, now) => setPolicy({ ...record, max: 8 * record.max }, now)
      replicator.policyOf = cid => {
        const policy = policyOf(cid)
        return policy === undefined ? undefined : { ...policy, max: policy.max / 8 }
      }
    }
  },
  {
    name: 'fills-a-full-disk',
    shows: 'nobody takes what it has no room for',
    seed: 12,
    what: 'offers are accepted while others have filled the disk',
    faults: ['full-disk', 'loss'],
    ports: ports => ({ ...ports, diskFreeBytes: () => NEVER })
  },
  {
    name: 'disproved-is-ignored',
    what: 'a failed proof makes nobody look at the disk: what is bad stays so until the next scrub',
    faults: ['rot'],
    ports: ports => ({ ...ports, scrub: () => {} })
  }
]

function publisherOf (bytes: Uint8Array): unknown { return JSON.parse(new TextDecoder().decode(bytes)).publisher }

function swallow (work: () => void): void {
  try {
    work()
  } catch (error) {
    if (!(error instanceof LedgerFullError)) throw error
  }
}

/** After the call that asked, as an answer would come. */
function answerFor (node: SimNode, from: string, { id, model, shard }: { id: string, model: string, shard: number }): void {
  const { life } = node
  node.soon(() => { if (node.life === life) node.replicator?.receive(from, { type: 'keep', id, model, shard, ok: true }, node.now) })
}

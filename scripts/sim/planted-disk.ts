import { NEVER, type Plant } from './plant.ts'
import { modelIndexOf } from './types.ts'

/** What somebody got wrong about a volume that fails, and about what may go when room is needed. */
export const diskPlants: readonly Plant[] = [
  {
    name: 'never-suspects',
    shows: 'a suspect volume is drained',
    what: 'a volume that rots block after block is trusted for ever',
    faults: ['bad-volume'],
    settings: settings => ({ ...settings, scrubSuspectBlocks: NEVER })
  },
  {
    name: 'suspicion-is-forgotten',
    seed: 24,
    shows: 'a suspect volume is drained',
    what: 'a restart makes a failing volume a good one, before it has been looked at',
    faults: ['bad-volume', 'crash', 'reboot'],
    suspectSince: () => undefined
  },
  {
    name: 'suspect-volumes-take-on',
    seed: 5,
    shows: 'a suspect volume takes nothing',
    what: 'a failing volume is called drained, and goes on to take what is offered',
    faults: ['bad-volume', 'loss', 'pin'],
    patch: (replicator, node) => {
      replicator.drain = () => {}
      Object.defineProperty(replicator, 'draining', { get: () => node.draining })
    }
  },
  {
    name: 'evicts-promised-shards',
    shows: 'nobody evicts what it promised',
    what: 'single shards go whether or not they were let go of',
    faults: ['cache-pressure'],
    patch: replicator => { replicator.spare = () => true }
  },
  {
    name: 'a-lost-ledger-is-no-promise',
    seed: 102,
    shows: 'nobody evicts what it promised',
    what: 'who lost its ledger has promised nothing, and all it has may go at once',
    faults: ['ledger-loss', 'cache-pressure'],
    init: init => ({ ...init, ledgerLostMs: undefined })
  },
  {
    name: 'a-lost-ledger-is-never-rebuilt',
    shows: 'a lost ledger is rebuilt',
    what: 'who lost its ledger waits for somebody to tell it what is wanted, and asks nobody',
    faults: ['ledger-loss', 'cache-pressure'],
    ports: (ports, node) => ({ ...ports, find: model => node.disk.ledgerLostAt !== undefined || ports.find(model) }),
    receive: (message, _from, to) => message.type === 'state' && to.disk.ledgerLostAt !== undefined ? { ...message, models: [] } : message
  },
  {
    name: 'evicts-the-last-copy-known',
    seed: 14,
    shows: 'the last copy known is not evicted',
    what: 'what nobody has promised to keep goes when room is needed, though nobody else is known to have it',
    faults: ['cache-pressure'],
    patch: (replicator, node) => {
      const keeps = replicator.keeps.bind(replicator)
      replicator.keeps = cid => {
        const index = node.modelIndex(cid)
        const promised = [...node.disk.committed].some(key => modelIndexOf(key) === index) || [...node.pulls.values()].some(pull => pull.model.index === index)
        return promised && keeps(cid)
      }
    }
  },
  {
    name: 'counts-on-each-other',
    seed: 168,
    shows: 'the last copy known is not evicted',
    what: 'those who only have something cached all let go of it at once, each because the others have it',
    faults: ['cache-pressure'],
    patch: (replicator, node) => {
      const keeps = replicator.keeps.bind(replicator)
      const othersHave = (cid: string): boolean => (replicator.shards(cid, node.now) ?? []).every(({ holders }) => {
        const own = holders.find(({ peerId }) => peerId === node.name)
        return own === undefined || (own.state === 'cached' && holders.some(other => other !== own && other.state !== 'down'))
      })
      replicator.keeps = cid => keeps(cid) && ([...node.pulls.values()].some(pull => pull.model.cid === cid) || !othersHave(cid))
    }
  }
]

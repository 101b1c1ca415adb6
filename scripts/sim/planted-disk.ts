import { NEVER, type Plant } from './plant.ts'

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
    shows: 'a suspect volume is drained',
    what: 'a restart makes a failing volume a good one, before it has been looked at',
    faults: ['bad-volume', 'crash', 'reboot'],
    suspectSince: () => undefined
  },
  {
    name: 'suspect-volumes-take-on',
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
  }
]

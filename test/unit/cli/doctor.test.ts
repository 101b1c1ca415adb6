import assert from 'node:assert/strict'
import type { ShownStatus } from '../../../src/api/types.ts'
import { shownStatus } from '../../../src/api/replication.ts'
import { peers, problems } from '../../../src/cli/doctor/network.ts'
import { problemsOf } from '../../../src/node/problems.ts'
import { resolveSettings } from '../../../src/node/settings.ts'
import type { NodeStatus, PeerStatus } from '../../../src/node/types.ts'
import { FakeNode } from '../api/fake-node.ts'

const SOMEBODY = '/ip4/10.0.0.1/tcp/4108/p2p/12D3KooWGz9PMxtHsbHc66ZDnwJPpgoN7PD4AbF3meXc6xdg7iec'

describe('cli: doctor', () => {
  /** Of a node whose own words about itself these are. */
  const statusOf = async ({ join = [], banned = 0, troubles = [], ...change }: { join?: string[], banned?: number, troubles?: string[] } & Partial<NodeStatus>): Promise<ShownStatus> => {
    const status = { ...await new FakeNode().status(), ...change }
    return shownStatus({ ...status, problems: problemsOf(status, resolveSettings({ join }), Array.from<PeerStatus>({ length: banned }), [], () => false, troubles) }, 0)
  }

  it('says what the daemon calls a problem, each with what to do', async () => {
    const found = problems(await statusOf({ banned: 2, troubles: ['X has 1 of at least 2 replicas: nobody gives space; start more nodes; see shoal show X', 'it is so'] }))
    assert.deepEqual(found.map(({ level, message, fix }) => [level, message, fix]), [
      ['warn', 'X has 1 of at least 2 replicas: nobody gives space', 'start more nodes; see shoal show X'],
      ['warn', 'it is so', 'see shoal status'],
      ['warn', '2 peers are banned for misbehaving', 'see shoal peers']
    ])
  })

  it('goes by what the daemon was given to join', async () => {
    const joining = await statusOf({ join: [SOMEBODY], peersConnected: 0 })
    assert.deepEqual(problems(joining), [{ check: 'peers', level: 'fail', message: 'no peer is connected: none of the peers to join answers', fix: 'check their addresses and the swarm key' }])
    assert.deepEqual(peers(joining, []), [])
    const first = await statusOf({ peersConnected: 0 })
    assert.deepEqual(problems(first), [])
    assert.deepEqual(peers(first, []).map(({ level, message }) => [level, message]), [['warn', 'no peer is connected, and the daemon was given none to join']])
    assert.deepEqual(peers(await statusOf({ join: [SOMEBODY] }), []).map(({ level }) => level), ['ok'])
  })
})

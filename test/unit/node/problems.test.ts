import assert from 'node:assert/strict'
import { problemsOf } from '../../../src/node/problems.ts'
import { resolveSettings } from '../../../src/node/settings.ts'
import type { NodeStatus } from '../../../src/node/types.ts'
import { FakeNode } from '../api/fake-node.ts'

describe('problems of a node', () => {
  const problems = async (change: (status: NodeStatus) => void, unreached = 0): Promise<string[]> => {
    const status = await new FakeNode().status()
    change(status)
    return problemsOf(status, resolveSettings(), [], [], () => false, [], unreached)
  }

  it('are none when there are none', async () => {
    assert.deepEqual(await problems(() => undefined), [])
  })

  it('say that a node is drained, unless it drains because its volume is not trusted', async () => {
    assert.match((await problems(({ replication }) => { replication.draining = true; replication.scrub.suspectSince = undefined })).join(), /^this node is draining: .*until the daemon is started again$/)
    assert.deepEqual(await problems(({ replication }) => { replication.draining = true; replication.scrub.suspectSince = 1 }), [])
  })

  it('say of a full volume what frees space, with a quota or without', async () => {
    const [problem = ''] = await problems(({ storage }) => { storage.volumeFreeBytes = 1_000 })
    assert.match(problem, /less than 1 GiB is free on the data volume; .*shoal rm CID.*storage\.quota/)
    assert.doesNotMatch(problem, /free some with: shoal gc/)
  })
  it('say that a node is alone which remembers others, and not of one that never had any', async () => {
    assert.deepEqual(await problems(status => { status.peersConnected = 0 }), [])
    assert.match((await problems(status => { status.peersConnected = 0 }, 3)).join(), /^no peer is connected: none that this node remembers answers \(3 in all\)/)
    assert.deepEqual(await problems(status => { status.peersConnected = 1 }, 3), [])
  })
})

import assert from 'node:assert/strict'
import { kept } from '../../../src/cli/commands/ls.ts'

describe('cli: ls', () => {
  it('says why a model stays, and calls none cached that the swarm counts on', () => {
    const nothing = { pinned: false, published: false, keeps: false }
    assert.equal(kept(nothing), 'cached')
    assert.equal(kept({ ...nothing, keeps: true }), 'replica')
    assert.equal(kept({ ...nothing, pinned: true, keeps: true }), 'pinned, replica')
    assert.equal(kept({ ...nothing, published: true, keeps: true }), 'published')
    assert.equal(kept({ pinned: true, published: true, keeps: false }), 'pinned, published')
  })
})

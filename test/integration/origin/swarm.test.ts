import assert from 'node:assert/strict'
import { askAtOnce } from '../../support/ask-at-once.ts'

/** Each is a whole node: Kademlia alone asks twenty others, so more of them would only take longer here. test/long has fifty. */
const NODES = 20

describe('origin: a swarm', function () {
  this.timeout(180_000)

  it(`costs the Hub one copy when ${NODES} nodes ask at once`, async () => {
    const copies = await askAtOnce({ nodes: NODES, transport: 'memory', mesh: 'full', timeoutMs: 170_000 })
    assert.ok(copies <= 1.05, `${copies} copies`)
  })
})

import assert from 'node:assert/strict'
import { parseRepoName, showRepoName } from '../../../src/model/index.ts'

const CID = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'

describe('model: repository names', () => {
  for (const text of ['meta/llama-3-8b', 'gpt2', 'a/b', 'A_b.c/D-e_1.0', `${'a'.repeat(96)}/${'b'.repeat(96)}`]) {
    it(`take ${text.slice(0, 40)}`, () => {
      assert.deepEqual(parseRepoName(text), { repo: text, revision: 'main' })
      assert.equal(showRepoName(parseRepoName(`${text}@main`)), text)
    })
  }

  for (const revision of ['v1.0', 'refs/pr/1', 'release/2026-11', 'версия-2', '模型', 'a+b', 'x@y', '0123456789abcdef', 'r'.repeat(200)]) {
    it(`take the revision ${revision.slice(0, 40)}`, () => {
      assert.deepEqual(parseRepoName(`a/b@${revision}`), { repo: 'a/b', revision })
      assert.equal(showRepoName({ repo: 'a/b', revision }), `a/b@${revision}`)
    })
  }

  const wrong: Array<[string, string]> = [
    ['nothing', ''], ['an empty part', 'a/'], ['no organisation', '/b'], ['three parts', 'a/b/c'], ['a dot first', '.a/b'], ['a dash last', 'a/b-'],
    ['two dots', 'a/b..c'], ['two dashes', 'a/b--c'], ['.git', 'a/b.git'], ['a parent', '../etc'], ['a dot', './b'], ['a space', 'a b'], ['a letter beyond ASCII', 'é/b'],
    ['an escape', 'a/%2e%2e'], ['a backslash', 'a\\b'], ['a NUL', 'a/b\0'], ['a line break', 'a/b\n'], ['a long part', `a/${'b'.repeat(97)}`], ['the place of CIDs', `cid/${CID}`], ['the place of routes', 'api/models'],
    ['another kind', 'datasets/x'], ['what stands behind names', 'a/resolve'], ['the same in capitals', 'API/x'],
    ['an empty revision', 'a/b@'], ['a parent as revision', 'a/b@../x'], ['a parent in it', 'a/b@x/../y'], ['a slash first', 'a/b@/x'], ['a slash last', 'a/b@x/'], ['two slashes', 'a/b@x//y'],
    ['a commit', `a/b@${'0'.repeat(40)}`], ['a commit in capitals', `a/b@${'A'.repeat(40)}`], ['a lock', 'a/b@x.lock'], ['a hidden one', 'a/b@.x'], ['an option', 'a/b@-x'], ['a space in it', 'a/b@x y'],
    ['a control', 'a/b@x\u0007'], ['a mark that reverses text', 'a/b@x\u202ey'], ['letters that are not composed', 'a/b@e\u0301'], ['too long', `a/b@${'é'.repeat(101)}`]
  ]
  for (const [what, text] of wrong) {
    it(`refuse ${what}`, () => { assert.throws(() => parseRepoName(text), { name: 'InvalidRepoNameError' }) })
  }
})

// Loads pages in Chromium and checks what only a browser can tell: node check.mjs PAGE.html…
// It prints how long each took to load, and one line for each mistake, and exits with 1 if there is one.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
let mistakes = 0
const say = (...words) => { mistakes++; console.log(words.join(' ')) }

// inPage runs in the page: texts that leave their picture, overlap, or are shown in a language that is not chosen.
const inPage = () => {
  const out = []
  const seen = e => e.checkVisibility()
  for (const picture of document.querySelectorAll('section svg')) {
    const frame = picture.getBoundingClientRect()
    const texts = [...picture.querySelectorAll('text')].filter(seen).map(e => ({ s: e.textContent, r: e.getBoundingClientRect() }))
    const where = picture.getAttribute('aria-labelledby')
    texts.forEach((t, i) => {
      if (t.r.left < frame.left - 1 || t.r.right > frame.right + 1 || t.r.top < frame.top - 1 || t.r.bottom > frame.bottom + 1) {
        out.push(`${where}: "${t.s}" leaves its picture`)
      }
      for (const u of texts.slice(0, i)) {
        // A line of text is higher than its letters.
        if (t.r.left < u.r.right - 1 && u.r.left < t.r.right - 1 && t.r.top < u.r.bottom - 4 && u.r.top < t.r.bottom - 4) {
          out.push(`${where}: "${t.s}" and "${u.s}" overlap`)
        }
      }
    })
  }
  const chosen = document.getElementById('korean').checked ? 'ko' : 'en'
  for (const e of document.querySelectorAll(chosen === 'ko' ? '.en' : '.ko')) {
    if (seen(e)) { out.push(`"${e.textContent.slice(0, 40)}" is shown in the other language`); break }
  }
  for (const id of ['what', 'where', 'since', 'cause']) {
    const b = document.getElementById(id)
    if (!b) { out.push(`no box ${id}`); continue }
    if (innerWidth > 1000 && b.getBoundingClientRect().bottom + scrollY > 900) out.push(`${id} ends below the first 900 pixels`)
    if (b.getBoundingClientRect().right > innerWidth) out.push(`${id} is wider than the window`)
  }
  if (document.documentElement.scrollWidth > innerWidth) out.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${innerWidth}`)
  const n = document.querySelectorAll('*').length
  if (n > 15000) out.push(`${n} elements`)
  // Two series of one picture must differ by more than their colour: by shape, or by pattern.
  for (const picture of document.querySelectorAll('section svg')) {
    const looks = new Map()
    for (const e of picture.querySelectorAll('path.fill, path.area, path.dots, path.cross')) {
      const c = getComputedStyle(e)
      const look = [c.fill.startsWith('url') ? c.fill : c.fill === 'none' ? 'none' : 'plain', c.strokeDasharray, c.strokeLinecap, e.classList[0]].join()
      const name = e.getAttribute('class')
      if (looks.has(look) && looks.get(look) !== name && !(name + looks.get(look)).includes('bad')) out.push(`${name} and ${looks.get(look)} look alike in grey`)
      looks.set(look, name)
    }
  }
  return out
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
let once = false // "--once PAGE": in one theme, width and language, without axe
for (const file of process.argv.slice(2)) {
  if (file === '--once') { once = true; continue }
  let fastest = Infinity
  const url = pathToFileURL(file).href
  for (const colorScheme of once ? ['light'] : ['light', 'dark']) {
    for (const [width, height] of once ? [[1280, 900]] : [[1280, 900], [390, 844]]) {
      for (const language of once ? ['korean'] : ['english', 'korean']) {
        const where = `${file} (${colorScheme}, ${width}, ${language}):`
        // The page itself has to do without scripts; axe is one that the test brings along, past its policy.
        const context = await browser.newContext({ viewport: { width, height }, colorScheme, bypassCSP: true })
        const page = await context.newPage()
        page.on('request', r => { if (r.url() !== url) say(where, 'asks for', r.url()) })
        page.on('console', m => { if (m.type() === 'error') say(where, m.text()) })
        await page.goto(url)
        fastest = Math.min(fastest, await page.evaluate(() => performance.getEntriesByType('navigation')[0].loadEventEnd))
        await page.check('#' + language)
        await page.evaluate(() => document.querySelectorAll('details').forEach(d => { d.open = true }))
        for (const m of await page.evaluate(inPage)) say(where, m)
        if (once) { await context.close(); continue }
        await page.evaluate(axe)
        const found = await page.evaluate(() => window.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }))
        for (const v of found.violations) say(where, 'axe', v.id, v.help, v.nodes.slice(0, 2).map(n => n.html.slice(0, 160)).join(' | '))
        await context.close()
      }
    }
  }
  // The machine may be busy with other tests: the fastest of the loads counts.
  console.log(`${file}: loaded in ${fastest.toFixed(0)} ms`)
  if (fastest > 1000 && !once) say(file, 'takes more than a second to load')
  if (once) { once = false; continue }
  // Without scripts the language can be changed all the same, and the page prints.
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height: 900 } })
  const page = await context.newPage()
  await page.goto(url)
  await page.check('#korean')
  if (!await page.locator('h1 .ko').first().isVisible()) say(file, 'without scripts the language cannot be changed')
  const pdf = await page.pdf({ format: 'A4' })
  if (pdf.length < 10000) say(file, 'prints', pdf.length, 'bytes')
  await context.close()
}
await browser.close()
process.exit(mistakes ? 1 : 0)

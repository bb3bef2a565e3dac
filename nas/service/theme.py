"""How the pages look: colours, type and spacing as CSS variables, for the light and the dark page.

Colours of data are from the Okabe-Ito palette, which people with colour-blindness tell apart;
  nothing is said by colour
alone. Charts are drawn as SVG, so that they take the variables, too, and follow the page when it turns dark.
"""

from __future__ import annotations

STAGES = 6  # colours of stages: --stage-0 to --stage-5
SERIES = tuple(f"var(--series-{i})" for i in range(7))  # colours of studies that are overlaid

CSS = """
:root {
  --page: #f5f6f8; --surface: #ffffff; --raised: #f8f9fb; --line: #dfe3e8; --text: #16202b; --muted: #5b6773;
  --accent: #0a5f9e; --accent-soft: #e3eff8; --front: #0072b2; --over: #d55e00; --cloud: #98a2ad;
  --good: #00795a;
  --warn: #a15c00; --bad: #b3261e; --good-soft: #dff3ec; --warn-soft: #fdf0d9; --bad-soft: #fce6e3;
  --stage-0: #8cc7ea; --stage-1: #8ed6bf; --stage-2: #f4cf7a; --stage-3: #e6b3cf; --stage-4: #f0b48a;
  --stage-5: #c9d06f;
  --stage-end: #c8ced6; --pool: #fbe3d3; --pool-line: #d55e00; --ink: #16202b;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #009e73; --series-3: #b85c94; --series-4: #c88700;
  --series-5: #3a9fd6; --series-6: #4d4d4d;
}
body.body--dark {
  --page: #0e141b; --surface: #161e27; --raised: #1c2631; --line: #2c3947; --text: #e8edf2; --muted: #9aa8b6;
  --accent: #6cb8ec; --accent-soft: #17324a; --front: #56b4e9; --over: #f08a4b; --cloud: #64717e;
  --good: #4fcfa6;
  --warn: #e9b24c; --bad: #f28b82; --good-soft: #12352c; --warn-soft: #3a2d12; --bad-soft: #41201e;
  --stage-0: #3f82ad; --stage-1: #2f8c72; --stage-2: #a37a1e; --stage-3: #96557a; --stage-4: #a5602f;
  --stage-5: #7a8028;
  --stage-end: #4a5765; --pool: #43291a; --pool-line: #f08a4b; --ink: #ffffff;
  --series-0: #56b4e9; --series-1: #f08a4b; --series-2: #35c79a; --series-3: #e08fbc; --series-4: #f0b93a;
  --series-5: #a5d8f5; --series-6: #c2c9d0;
}
body { background: var(--page); color: var(--text); font-size: 14px; line-height: 1.5;
  font-family: Inter, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
body.body--dark { background: var(--page); color: var(--text); }
.nicegui-content { padding: 0; gap: 0; }
.nicegui-header { padding: 0 !important; }
h1, h2 { margin: 0 !important; padding: 0; }
body { --q-primary: #0a6ab0 !important; }
body.body--dark { --q-primary: #3a8fd0 !important; }
body.body--dark .q-field .text-negative, body.body--dark .q-field--error .q-field__bottom {
  color: var(--bad) !important; }
a, .nicegui-link { color: var(--accent); text-decoration: none; }
a:hover, .nicegui-link:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent) !important; outline-offset: 2px; border-radius: 4px; }
.q-header { background: var(--surface) !important; color: var(--text) !important;
  border-bottom: 1px solid var(--line); }
.top { width: 100%; max-width: 1280px; margin: 0 auto; padding: 10px 24px; display: flex; align-items: center;
  gap: 20px; }
.brand { display: flex; align-items: center; gap: 9px; font-weight: 650; font-size: 16px; color: var(--text);
  letter-spacing: -0.01em; }
.brand:hover { text-decoration: none; }
.nav { white-space: nowrap; color: var(--muted); font-weight: 500; padding: 5px 2px;
  border-bottom: 2px solid transparent; }
.nav:hover { color: var(--text); text-decoration: none; }
.nav.here { color: var(--text); border-color: var(--accent); }
main.body, .main { width: 100%; max-width: 1280px; margin: 0 auto; padding: 22px 24px 64px; display: flex;
  flex-direction: column; gap: 18px; }
.title { font-size: 24px; font-weight: 650; letter-spacing: -0.02em; line-height: 1.2; overflow-wrap: anywhere; }
.crumbs { color: var(--muted); font-size: 13px; display: flex; gap: 6px; flex-wrap: wrap; overflow-wrap: anywhere; }
.heading { line-height: 1.4; font-size: 15px; font-weight: 620; letter-spacing: -0.005em; }
.soft { color: var(--muted); }
.small { font-size: 12.5px; }
.number { font-variant-numeric: tabular-nums; }
.panel { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  width: 100%;
  min-width: 0; display: flex; flex-direction: column; gap: 10px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 18px;
  width: 100%; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: 14px;
  width: 100%; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); width: 100%;
  flex-shrink: 0; background: var(--surface); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.tile { background: var(--surface); padding: 11px 14px; min-width: 0; margin: -1px 0 0 -1px;
  border-left: 1px solid var(--line); border-top: 1px solid var(--line); }
.tile .name { color: var(--muted); font-size: 12px; }
.tile .value { font-size: 19px; font-weight: 620; font-variant-numeric: tabular-nums; letter-spacing: -0.01em;
  overflow-wrap: anywhere; line-height: 1.3; }
.tile .note { color: var(--muted); font-size: 12px; min-height: 1.3em; }
.chip { display: inline-flex; align-items: center; gap: 5px; border-radius: 999px; padding: 1px 9px 1px 7px;
  font-size: 12px;
  font-weight: 560; white-space: nowrap; background: var(--raised); color: var(--muted);
  border: 1px solid var(--line); }
.chip .q-icon { font-size: 14px; }
.chip.live { background: var(--accent-soft); color: var(--accent); border-color: transparent; }
.chip.good { background: var(--good-soft); color: var(--good); border-color: transparent; }
.chip.warn { background: var(--warn-soft); color: var(--warn); border-color: transparent; }
.chip.bad { background: var(--bad-soft); color: var(--bad); border-color: transparent; }
.note-box { border-radius: 8px; padding: 9px 12px; font-size: 13px; background: var(--raised); color: var(--text);
  border: 1px solid var(--line); width: 100%; overflow-wrap: anywhere; white-space: pre-line; }
.note-box.good { background: var(--good-soft); border-color: transparent; color: var(--good); }
.note-box.warn { background: var(--warn-soft); border-color: transparent; color: var(--warn); }
.note-box.bad { background: var(--bad-soft); border-color: transparent; color: var(--bad); }
.empty { display: flex; flex-direction: column; align-items: center; gap: 6px; padding: 40px 20px; text-align: center;
  color: var(--muted); width: 100%; }
.empty .q-icon { font-size: 38px; opacity: 0.55; }
.empty .what { color: var(--text); font-weight: 600; font-size: 15px; }
.bar { height: 5px; border-radius: 3px; background: var(--line); overflow: hidden; width: 100%; }
.bar > div { height: 100%; background: var(--front); border-radius: 3px; }
.chart { width: 100%; height: 300px; }
.chart.tall { height: 430px; }
.scroll { overflow-x: auto; width: 100%; }
.command { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 12.5px;
  background: var(--raised);
  border: 1px solid var(--line); border-radius: 8px; padding: 9px 12px; overflow-wrap: anywhere; flex: 1;
  min-width: 0; }
.q-table__container, .q-table__card { background: transparent !important; color: var(--text) !important;
  box-shadow: none; }
.q-table th { font-size: 12px; color: var(--muted); font-weight: 560; }
.q-table td { font-variant-numeric: tabular-nums; }
.q-table tbody tr:hover { background: var(--raised); }
.q-table thead tr, .q-table tbody td { border-color: var(--line) !important; }
.q-table tbody td { height: 40px; }
.study-link { font-weight: 600; }
.q-btn { text-transform: none; font-weight: 560; border-radius: 8px; letter-spacing: 0; }
.q-btn:before { box-shadow: none !important; }
.q-field--outlined .q-field__control { border-radius: 8px; }
.q-dialog .sheet { width: min(880px, 100vw); max-width: 100vw !important; height: 100%; border-radius: 0;
  padding: 20px 22px 40px;
  background: var(--page); color: var(--text); box-shadow: none; border-left: 1px solid var(--line); overflow-y: auto;
  display: flex; flex-direction: column; flex-wrap: nowrap; gap: 14px; }
.q-dialog .sheet > * { flex-shrink: 0; }
.q-dialog__inner:has(.sheet) { padding: 0 !important; outline: none !important; }
.pair { display: grid; grid-template-columns: minmax(110px, 1.2fr) 1fr 1fr; gap: 4px 14px; font-size: 13px;
  width: 100%; }
.pair > .head { color: var(--muted); font-size: 12px; }
.form { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); gap: 14px 16px;
  width: 100%;
  padding-bottom: 12px; }
svg text { font-family: inherit; fill: var(--text); font-size: 11.5px; }
svg text.arch-soft { fill: var(--muted); font-size: 11px; }
svg text.arch-width { font-weight: 600; font-size: 12px; }
svg text.arch-kernel { fill: var(--ink); font-weight: 600; font-size: 12px; }
svg text.arch-pool { fill: var(--pool-line); font-weight: 700; font-size: 12px; }
svg text.arch-size, svg text.arch-share { fill: var(--muted); font-variant-numeric: tabular-nums; }
svg text.arch-share { font-size: 10.5px; }
@media (max-width: 640px) {
  .top { padding: 8px 14px; gap: 14px; } .brand span, .nav[href="/api"] { display: none; }
  main.body, .main { padding: 16px 14px 48px; gap: 14px; }
  .title { font-size: 20px; } .panel { padding: 14px; } .chart.tall { height: 340px; } .chart { height: 250px; }
  .q-dialog .sheet { padding: 16px 14px 40px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

LOGO = (
    '<svg viewBox="0 0 26 22" width="26" height="22" aria-hidden="true"><rect x="1" y="1" width="6" height="20" rx="2" '
    'fill="#56b4e9"/><rect x="10" y="4.5" width="6" height="13" rx="2" fill="#009e73"/><rect x="19" y="8" width="6" '
    'height="6" rx="2" fill="#e69f00"/></svg>'
)
